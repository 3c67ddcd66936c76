"""From a record of the ledger to its source and its run directory: what can be made again without training."""

import shutil
from pathlib import Path

from components.files.linking import link_or_copy
from pipelines.errors import PodiumError
from pipelines.kernels.submitted_kernel import SubmittedKernel
from pipelines.reproduction.checkout import apply_patch, check_out, inside
from pipelines.reproduction.difference import Difference
from pipelines.reproduction.file_finder import FileFinder
from pipelines.runs.run import run_place
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry

# What holds commit, uncommitted changes and digest of the code.
Source = LedgerEntry | SubmittedKernel


def rebuild_source(repository: Path, ledger: Ledger, ref: str, source: Source, target: Path) -> None:
    """Clone the commit of a source into `target` and put its uncommitted changes on it.

    Raises PodiumError for a commit or changes that are not to be had.
    """
    if not source.commit:
        raise PodiumError(f"{ref}: the record has no commit; its run was not made in a checkout that git could read")
    patch = None
    if source.diff:
        patch = ledger.kept(source.diff.sha256)
        if patch is None:
            where = ledger.file(source.diff.sha256)
            raise PodiumError(f"{ref}: its run had uncommitted changes, and {where} is missing: commit ledger/ whole")
    check_out(repository, source.commit, target)
    if patch is not None:
        try:
            apply_patch(target, patch)
        except PodiumError:
            shutil.rmtree(target)
            raise


def explain_source(source: Source) -> str:
    """Why the source may differ although commit and changes are the recorded ones."""
    if source.diff and source.diff.secrets_removed:
        return f"{source.diff.secrets_removed} secrets were removed from the uncommitted changes"
    return "a module that git ignores, or a file changed while the run started"


def gather_run(ledger: Ledger, record: LedgerEntry, finder: FileFinder, runs: Path, target: Path) -> Difference | None:
    """Fill `target` with the recorded files of a run, found by their digests; the first that is nowhere is returned.

    The names of a record that was read from the ledger stay in their folder. Raises PodiumError where a file that the
    ledger keeps was changed.
    """
    former = run_place(runs, record.experiment, record.run)
    config = {"config.yaml": record.config_sha256}
    for line, recorded in (
        ("config_sha256", config),
        ("files_sha256", record.files_sha256),
        ("weights_sha256", record.weights),
    ):
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
