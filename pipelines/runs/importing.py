"""A run that was trained elsewhere and came back as a folder: into runs/ and into MLflow, as if it had run here.

A kernel that goes on from its own former output brings the same run again, longer; it is continued here as well.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from components.files.atomic import atomic_folder
from components.files.digests import read_unsealed
from pipelines.runs.foreign import read_foreign_run
from pipelines.tracking.journal import ANY_UNSENT
from pipelines.tracking.jsonl import TRACKING_FOLDER, finish_import, import_jsonl_run
from pipelines.tracking.place import NOT_TRACKED, Backend
from pipelines.tracking.recorded import read_run
from pipelines.runs.source.search import find_source
from pipelines.tracking.tracker import tracking_record
from pipelines.tracking.opening import open_tracker
from pipelines.workspace import Workspace
from pipelines.runs.record import Origin
from pipelines.runs.run import Run, run_place
from pipelines.runs.lock import locked_run
from pipelines.screen import say
from pipelines.errors import PodiumError

EVENTS = f"{TRACKING_FOLDER}/events.jsonl"
NEW, CONTINUED, KNOWN = "new", "continued", "known already"


@dataclass(frozen=True)
class ImportedRun:
    """A run that lies under runs/ now; `state` says whether it is new, continued or was there."""

    run: Run
    state: str


def find_runs(folder: Path) -> list[Path]:
    """The run directories in a folder: itself, or what lies below. Raises PodiumError where there is none."""
    if not folder.is_dir():
        raise PodiumError(f"{folder}: no such folder; `podium pull` fetches a kernel's output")
    records = [folder / "run.json"] if (folder / "run.json").is_file() else sorted(folder.rglob("run.json"))
    found = [path.parent for path in records if (path.parent / EVENTS).is_file()]
    if not found:
        what = "no run with a tracking/ folder" if records else "no run directory (run.json)"
        raise PodiumError(f"{folder}: holds {what}; a kernel that trains leaves one under runs/")
    return found


def read_origin(folder: Path) -> Origin | None:
    """The version whose pulled output `folder` is: its record lies beside it. PodiumError for one that cannot be."""
    folder = folder.absolute()
    beside = folder.with_suffix(".json") if folder.name else folder
    if not beside.is_file():
        return None
    try:
        if beside.is_symlink():
            raise ValueError(f"{beside}: is a symbolic link; replace it with the file that `podium pull` wrote")
        origin = Origin.of(read_unsealed(beside), beside)
    except ValueError as error:
        raise PodiumError(str(error)) from None
    return origin if origin.kernel and origin.version else None


def import_run(workspace: Workspace, source: Path, origin: Origin | None) -> ImportedRun:
    """Copy a run directory to its place and replay its tracking into MLflow; again, it changes nothing.

    Raises PodiumError, with nothing half-written, for a run of the same id that did not grow into this one, and for a
    run that `read_foreign_run` refuses.
    """
    record = read_foreign_run(source, TRACKING_FOLDER)
    run = Run(run_place(workspace.runs, record.experiment, record.run))
    _compare(source, run)  # what is refused leaves no trace, not even of a lock
    with locked_run(run.path, say):
        return _import_alone(workspace, source, run, origin)


def _import_alone(workspace: Workspace, source: Path, run: Run, origin: Origin | None) -> ImportedRun:
    state = _compare(source, run)
    if state == KNOWN and run.read_record().imported is not None:
        return ImportedRun(run, KNOWN)
    if state != KNOWN:
        Run(source).check_files()
        _copy(source, run)
    _name_source(workspace, run)
    _replay(workspace, run, origin)
    return ImportedRun(run, state)


def _compare(source: Path, run: Run) -> str:
    """Events are only appended, so that a run which went on begins with those it had."""
    if not run.record_file.is_file():
        if run.path.exists() or run.path.is_symlink():
            raise PodiumError(f"{run.path}: is there already and is no run (no run.json); move it away first")
        return NEW
    here = (run.path / EVENTS).read_bytes() if (run.path / EVENTS).is_file() else b""
    there = (source / EVENTS).read_bytes()
    if here == there:
        return KNOWN
    if here and there.startswith(here):
        return CONTINUED
    cure = "move it away first, or import the newest version of the kernel"
    raise PodiumError(f"{run.path}: is there already, and {source} is no continuation of it; {cure}")


def _copy(source: Path, run: Run) -> None:
    """A continued run keeps which MLflow run it is. A new one has none here, whatever it says."""
    tracking = run.read_record().tracking if run.record_file.is_file() else None
    with atomic_folder(run.path) as partial:
        # A link that was put there since the folder was looked at is not followed.
        # What others could not send would be sent from here, with whatever files it names.
        unsent = shutil.ignore_patterns(ANY_UNSENT)
        shutil.copytree(source, partial, dirs_exist_ok=True, symlinks=True, ignore=unsent)
        if run.submissions_file.is_file():
            shutil.copy2(run.submissions_file, partial)
        Run(partial).update_record(tracking=tracking)


def _name_source(workspace: Workspace, run: Run) -> None:
    """A kernel has no git: the commit is found by the digest of what it ran."""
    record = run.read_record()
    if record.commit:
        return
    known = find_source(workspace.root, str(record.source_sha256))
    if known is not None:
        run.write_diff(known.diff)
        run.update_record(commit=known.commit, dirty=bool(known.diff))
        run.note_files(run.diff_file)


def _replay(workspace: Workspace, run: Run, origin: Origin | None) -> None:
    """Into the MLflow run that `tracking` names, else a new one; noted before, lest a crash should leave two."""
    record, tracking = run.read_record(), run.path / TRACKING_FOLDER
    recorded = read_run(tracking)
    former = record.tracking or NOT_TRACKED
    tracker = open_tracker(
        "mlflow",
        workspace,
        competition=str(recorded.competition),
        run_name=recorded.name,
        run_dir=run.path,
        resume_run_id=former.run_id if former.backend is Backend.MLFLOW else None,
        started_ms=recorded.started_ms,
        mode=record.mode_name,
    )
    run.update_record(tracking=tracking_record(tracker))
    import_jsonl_run(tracking, tracker)
    tags = {"commit": record.commit or "none", "dirty": record.dirty_word, "mode": record.mode_name}
    if origin is not None:
        tags |= {"kernel": str(origin.kernel), "kernel.version": str(origin.version)}
    tracker.log_tags(tags)
    if run.diff_file.exists():
        tracker.log_text(run.read_diff(), "git.diff")
    finish_import(recorded, tracker)
    run.update_record(imported=origin or Origin())
