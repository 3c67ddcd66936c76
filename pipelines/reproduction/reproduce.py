"""`podium reproduce`: a submission made again from its record, and either equal bytes or the first line that differs.

What decides the bytes is compared before anything is computed: source, data, configuration, weights. Library versions
and the machine may differ without effect; they are named when the bytes turn out different.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from components.files.digests import file_digest
from pipelines.competitions.data_digests import digest_of
from pipelines.kernels.rehearsal.hidden_rerun import OWN
from pipelines.modes import name_mode
from pipelines.reproduction.checkout import ask_competition, inside, run_podium
from pipelines.reproduction.difference import Difference, differences
from pipelines.reproduction.file_finder import FileFinder
from pipelines.reproduction.kernel_rebuilding import rebuild_kernel
from pipelines.reproduction.rebuilding import Source, explain_source, gather_run, rebuild_source
from pipelines.runs.record import RUN_JSON, Machine, RunRecord
from pipelines.runs.run import run_place
from pipelines.runs.source.machine import describe_machine, list_versions
from pipelines.runs.source.state import hash_source
from pipelines.screen import say
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.submissions.writer import settle_here
from pipelines.workspace import Workspace

# Of the machine, what equal bits depend on.
BITS = ("processor", "gpus", "torch_threads")
PROMISE = "equal bits are promised only on the same kind of processor, with the same thread count and library versions"


def reproduce(
    workspace: Workspace,
    ref: str,
    *,
    weights: Sequence[Path] = (),
    data_dir: Path | None = None,
    into: Path | None = None,
    retrain: bool = False,
    console: Console | None = None,
) -> bool:
    """Make the submission of `ref` again, in a clone at its commit, and say whether its bytes are the recorded ones.

    Weights are looked for under runs/ and in `weights`; data in `data_dir`, else where the workspace has them. `into`
    keeps the clone. With `retrain` the run is trained again. Raises `PodiumError` where something is not to be had.
    """
    settle_here(workspace)
    ledger = Ledger(workspace.ledger)
    record = ledger.find(ref)
    record.check_whole()
    source = record if retrain else record.source
    if retrain:
        record.training_words()  # before anything is cloned
    what = ", ".join(filter(None, (record.run, name_mode(str(record.mode)))))
    say(f"{record.ref}: {record.experiment} {what}, commit {str(source.commit)[:12]}", console)
    with _folder(into) as target:
        rebuild_source(workspace.root, ledger, record.ref, source, target)
        slug = ask_competition(target, record.competition).slug
        work = _Work(workspace, ledger, record, source, target, slug, hash_source(target), console)
        data = data_dir.absolute() if data_dir else _find_data(work)
        found = _compare_inputs(work, data)
        if found is None:
            environment = _compare_environment(work)
            found = _train_again(work, data) if retrain else _predict_again(work, data, weights)
            if found and found.line == "submission_sha256" and environment:
                say(f"  {found}", console)
                found = environment[0]
    return _conclude(work, found, retrain)


@dataclass(frozen=True)
class _Work:
    """A record, the clone at its commit, the competition's slug there, and the digest of the clone's source."""

    workspace: Workspace
    ledger: Ledger
    record: LedgerEntry
    source: Source
    target: Path
    slug: str
    source_sha256: str
    console: Console | None

    @property
    def threads(self) -> dict[str, str]:
        """The recorded number, for the processes to come."""
        number = self.record.machine and self.record.machine.torch_threads
        return {"OMP_NUM_THREADS": str(number)} if number else {}

    def say(self, text: str) -> None:
        say(text, self.console)


@contextmanager
def _folder(into: Path | None) -> Iterator[Path]:
    if into is not None:
        yield into.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="podium-reproduce-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve() / "checkout"


def _conclude(work: _Work, found: Difference | None, retrain: bool) -> bool:
    if found is None:
        what = "the submission" if work.record.submission_sha256 else "all that is on record"
        work.say(f"equal: {what} of {work.record.ref}, byte for byte")
        return True
    work.say(f"differs: {found}")
    if retrain:
        work.say(PROMISE)
    return False


# -- what goes in ----------------------------------------------------------------------------------------------------


def _find_data(work: _Work) -> Path:
    folder = work.workspace.data_dir(work.slug).absolute()
    if folder.is_dir():
        return folder
    # An embedded competition's data are written by the code of the commit; of another's it says how to get them.
    run_podium(work.target, ["data", "prepare", work.record.competition])
    return Workspace(work.target).data_dir(work.slug)


def _compare_inputs(work: _Work, data: Path) -> Difference | None:
    """The first difference of source and data."""
    record, source = work.record, work.source
    if work.source_sha256 != source.source_sha256:
        return Difference("source_sha256", source.source_sha256, work.source_sha256, explain_source(source))
    work.say("  source     equal" + (", with its uncommitted changes" if source.diff else ""))
    for name, digest in record.data_sha256.items():
        found = digest_of(data, name)
        if found != digest:
            return Difference(f"data_sha256.{name}", digest, found, str(data / name))
    work.say(f"  data       {len(record.data_sha256)} files equal in {data}")
    return None


def _compare_environment(work: _Work) -> list[Difference]:
    machine, now = work.record.machine or Machine(), describe_machine()
    recorded = {name: getattr(machine, name) for name in BITS}
    # A number of threads that is on record is asked for below.
    here = {name: getattr(now, name) for name in BITS}
    here |= {"torch_threads": machine.torch_threads} if work.threads else {}
    found = differences("versions", work.record.versions, list_versions(work.record.versions))
    found += differences("machine", recorded, here)
    for difference in found:
        work.say(f"  {difference}")
    if not found:
        work.say("  libraries  equal, and so is the kind of processor")
    return found


# -- what comes out --------------------------------------------------------------------------------------------------


def _predict_again(work: _Work, data: Path, weights: Sequence[Path]) -> Difference | None:
    record, runs = work.record, work.workspace.runs
    run = inside(work.target, run_place(work.target / "runs", record.experiment, record.run))
    finder = FileFinder([*weights, runs])
    missing = gather_run(work.ledger, record, finder, runs, run)
    if missing is not None:
        return missing
    work.say(f"  weights    {len(record.weights)} files equal")
    output = run / "submission.csv"
    arguments = ["predict", "--run", str(run), "--data-dir", str(data), "--output", str(output)]
    run_podium(work.target, arguments, work.threads)
    return _compare_submission(work, output) or _build_again(work, data, finder)


def _build_again(work: _Work, data: Path, finder: FileFinder) -> Difference | None:
    """The kernel of the submission, if there was one and its source is the clone's."""
    kernel = work.record.kernel
    if not kernel:
        return None
    if kernel.source_sha256 != work.source_sha256:
        work.say(f"  kernel     not built: no commit is known to be its source ({str(kernel.source_sha256)[:16]})")
        return None
    clone = Workspace(work.target)
    _lay_out_data(clone, work.slug, data)
    found = rebuild_kernel(work.workspace, work.ledger, work.record, finder, clone)
    if found is None:
        work.say(f"  kernel     equal: {kernel.kernel} version {kernel.version}, notebook and datasets")
    return found


def _train_again(work: _Work, data: Path) -> Difference | None:
    """Train by the recorded command and compare what it leaves, in the order in which it is made."""
    record, words = work.record, work.record.training_words()
    work.say(f"  training   podium {' '.join(words)}")
    _lay_out_data(Workspace(work.target), work.slug, data)
    mode = {record.mode.upper(): "1"} if record.mode else {}
    run_podium(work.target, words, work.threads | mode)
    (run,) = (path.parent for path in work.target.glob("runs/*/*/run.json"))
    folds = RunRecord.read(run / RUN_JSON).folds_sha256
    if folds != record.folds_sha256:
        return Difference("folds_sha256", record.folds_sha256, folds, str(run / "folds.csv"))
    for line, files in (
        ("config_sha256", {"config.yaml": record.config_sha256}),
        ("weights_sha256", record.weights),
    ):
        for name, digest in files.items():
            found = file_digest(run / name) if (run / name).is_file() else None
            if found != digest:
                return Difference(f"{line}.{name}", digest, found, str(run / name))
    work.say(f"  weights    {len(record.weights)} files equal")
    return _compare_submission(work, run / "submission.csv")


def _lay_out_data(clone: Workspace, slug: str, data: Path) -> None:
    """The data in the clone, with its local host's, so that they are not prepared anew.

    Files are copied; folders, which hold images, are linked to, but for those that this project makes itself.
    """
    folder = inside(clone.root, clone.data_dir(slug))
    if folder == data:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in data.iterdir():
        if path.is_file():
            shutil.copy2(path, inside(clone.root, folder / path.name))
        elif path.name not in OWN and not path.name.startswith("."):
            (folder / path.name).symlink_to(path.resolve(), target_is_directory=True)
    answers, place = data.parent / "local_host" / data.name, inside(clone.root, clone.local_host(slug))
    if answers.is_dir():
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(answers)


def _compare_submission(work: _Work, output: Path) -> Difference | None:
    recorded, digest = work.record.submission_sha256, file_digest(output)
    if recorded and digest != recorded:
        return Difference("submission_sha256", recorded, digest, str(output))
    if recorded:
        work.say("  submission equal")
    else:
        work.say(
            f"  submission predicted, {digest[:16]}; the file that was scored is only on Kaggle, over its hidden rows"
        )
    return None
