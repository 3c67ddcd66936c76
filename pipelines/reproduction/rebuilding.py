"""From a record of the ledger to its source and its run directory: what can be made again without training."""

import shutil
from pathlib import Path

from components.files.linking import link_or_copy
from pipelines.errors import PodiumError
from pipelines.reproduction.checkout import apply_patch, check_out, inside
from pipelines.reproduction.file_finder import FileFinder
from pipelines.submissions.ledger import Difference, Ledger, Record


def source_of(record: Record) -> Record:
    """The entries `commit`, `diff` and `source_sha256` of the code that made a submission.

    They are the kernel's where one predicted and its commit is known, else the run's.
    """
    kernel = record.get("kernel") or {}
    return kernel if kernel.get("mode") == "predict" and kernel.get("commit") else record


def rebuild_source(repository: Path, ledger: Ledger, ref: str, source: Record, target: Path) -> None:
    """Clone the commit of `source_of` into `target` and put its uncommitted changes on it.

    Raises PodiumError for a commit or changes that are not to be had.
    """
    if not source["commit"]:
        raise PodiumError(f"{ref}: no commit is on record: its run was not made in a checkout that git could read")
    patch = None
    if source["diff"]:
        patch = ledger.kept(source["diff"]["sha256"])
        if patch is None:
            where = f"{ledger.path.parent / 'files' / source['diff']['sha256']}"
            raise PodiumError(f"{ref}: its run had uncommitted changes, and {where} is missing: commit ledger/ whole")
    check_out(repository, source["commit"], target)
    if patch is not None:
        try:
            apply_patch(target, patch)
        except PodiumError:
            shutil.rmtree(target)
            raise


def explain_source(source: Record) -> str:
    """Why the source may differ although commit and changes are the recorded ones."""
    removed = (source["diff"] or {}).get("secrets_removed", 0)
    if removed:
        return f"{removed} secrets were removed from the uncommitted changes"
    return "a module that git ignores, or a file changed while the run started"


def gather_run(ledger: Ledger, record: Record, finder: FileFinder, runs: Path, target: Path) -> Difference | None:
    """Fill `target` with the recorded files of a run, found by their digests; the first that is nowhere is returned.

    The names of a record that was read from the ledger stay in their folder. Raises PodiumError where a file that the
    ledger keeps was changed.
    """
    former = runs / record["experiment"].replace("/", "-") / record["run"]
    for line in ("config_sha256", "files_sha256", "weights_sha256"):
        recorded = {"config.yaml": record[line]} if line == "config_sha256" else record[line]
        for name, digest in recorded.items():
            source = ledger.kept(digest) or finder.find(name, digest, former / name)
            if source is None:
                return _missing(line, name, digest, finder, former / name)
            place = inside(target, target / name)
            place.parent.mkdir(parents=True, exist_ok=True)
            # Weights may be large and are never written to; the record of a run is.
            _ = (
                link_or_copy(str(source.resolve()), str(place))
                if line == "weights_sha256"
                else shutil.copyfile(source, place)
            )
    return None


def _missing(line: str, name: str, digest: str, finder: FileFinder, former: Path) -> Difference:
    key = line if line == "config_sha256" else f"{line}.{name}"
    if former.is_file():
        return Difference(key, digest, finder.digest(former), str(former))
    return Difference(key, digest, None, "name the folder that holds it with --weights")
