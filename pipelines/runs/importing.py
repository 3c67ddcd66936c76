"""A run that was trained elsewhere and came back as a folder: into runs/ and into MLflow, as if it had run here.

A kernel that goes on from its own former output brings the same run again, longer; it is continued here as well.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.files.atomic import atomic_folder, read_json
from pipelines import names
from pipelines.runs.foreign import read_foreign_run
from pipelines.tracking.jsonl import TRACKING_FOLDER, finish_import, import_jsonl_run
from pipelines.tracking.recorded import read_run
from pipelines.runs.source_search import find_source
from pipelines.tracking.tracker import tracking_record
from pipelines.tracking.opening import open_tracker
from pipelines.workspace import Workspace
from pipelines.runs.directory import RunDirectory, dirty_tag
from pipelines.runs.lock import locked_run
from pipelines.modes import read_mode
from pipelines.screen import say
from pipelines.errors import PodiumError

EVENTS = f"{TRACKING_FOLDER}/events.jsonl"
NOT_TRACKED = {"backend": "none", "run_id": None, "uri": None}
NEW, CONTINUED, KNOWN = "new", "continued", "known already"


@dataclass(frozen=True)
class Origin:
    """The kernel, as `owner/slug`, and its version that left a run."""

    kernel: str
    version: int


@dataclass(frozen=True)
class ImportedRun:
    """A run that lies under runs/ now; `state` says whether it is new, continued or was there."""

    directory: RunDirectory
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
        content = read_json(beside)
        if not isinstance(content, dict) or not {"kernel", "version"} <= set(content):
            return None
        kernel, version = names.source(content["kernel"], "owner/slug"), content["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"{version!r} is no version; needs its number, 1 or more")
    except (ValueError, RecursionError) as error:
        raise PodiumError(f"{beside}: {str(error).removeprefix(f'{beside}: ')}") from None
    return Origin(kernel, version)


def import_run(workspace: Workspace, source: Path, origin: Origin | None) -> ImportedRun:
    """Copy a run directory to its place and replay its tracking into MLflow; again, it changes nothing.

    Raises PodiumError, with nothing half-written, for a run of the same id that did not grow into this one, and for a
    run that `read_foreign_run` refuses.
    """
    record = read_foreign_run(source, TRACKING_FOLDER)
    _check_mode(record, source)
    run = RunDirectory(workspace.runs / str(record["experiment"]).replace("/", "-") / str(record["run"]))
    _compare(source, run)  # what is refused leaves no trace, not even of a lock
    with locked_run(run.path, say):
        return _import_alone(workspace, source, run, origin)


def _import_alone(workspace: Workspace, source: Path, run: RunDirectory, origin: Origin | None) -> ImportedRun:
    state = _compare(source, run)
    if state == KNOWN and "imported" in run.read_record():
        return ImportedRun(run, KNOWN)
    if state != KNOWN:
        RunDirectory(source).check_files()
        _copy(source, run, _keep_here(run))
    _name_source(workspace, run)
    _replay(workspace, run, origin)
    return ImportedRun(run, state)


def _check_mode(record: Mapping[str, Any], source: Path) -> None:
    try:
        read_mode(record)
    except PodiumError as error:
        raise PodiumError(f"{source / 'run.json'}: {error}") from None


def _compare(source: Path, run: RunDirectory) -> str:
    """Events are only appended, so that a run which went on begins with those it had."""
    if not run.record.is_file():
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


def _keep_here(run: RunDirectory) -> dict[str, Any]:
    """What a continued run keeps of its record: which MLflow run it is. A new one has none here, whatever it says."""
    return {"tracking": run.read_record().get("tracking", NOT_TRACKED) if run.record.is_file() else NOT_TRACKED}


def _copy(source: Path, run: RunDirectory, kept: Mapping[str, Any]) -> None:
    submissions = run.path / "submissions.jsonl"
    with atomic_folder(run.path) as partial:
        # A link that was put there since the folder was looked at is not followed.
        shutil.copytree(source, partial, dirs_exist_ok=True, symlinks=True)
        if submissions.is_file():
            shutil.copy2(submissions, partial)
        RunDirectory(partial).update_record(**kept)


def _name_source(workspace: Workspace, run: RunDirectory) -> None:
    """A kernel has no git: the commit is found by the digest of what it ran."""
    record = run.read_record()
    if record.get("commit"):
        return
    known = find_source(workspace.root, str(record.get("source_sha256")))
    if known is not None:
        run.write_diff(known.diff)
        run.update_record(commit=known.commit, dirty=bool(known.diff))
        run.note_files(run.diff)


def _replay(workspace: Workspace, run: RunDirectory, origin: Origin | None) -> None:
    """Into the MLflow run that `tracking` names, else a new one; noted before, lest a crash should leave two."""
    record, tracking = run.read_record(), run.path / TRACKING_FOLDER
    recorded = read_run(tracking)
    former = record["tracking"] if record["tracking"]["backend"] == "mlflow" else {}
    tracker = open_tracker(
        "mlflow",
        workspace,
        competition=str(recorded.competition),
        run_name=recorded.name,
        run_dir=run.path,
        resume_run_id=former.get("run_id"),
        started_ms=recorded.started_ms,
        mode=read_mode(record),
    )
    run.update_record(tracking=tracking_record(tracker))
    import_jsonl_run(tracking, tracker)
    tags = {"commit": record.get("commit") or "none", "dirty": dirty_tag(record), "mode": read_mode(record)}
    if origin is not None:
        tags |= {"kernel": origin.kernel, "kernel.version": str(origin.version)}
    tracker.log_tags(tags)
    if run.diff.exists():
        tracker.log_text(run.read_diff(), "git.diff")
    finish_import(recorded, tracker)
    imported = {"kernel": origin.kernel, "version": origin.version} if origin else {}
    run.update_record(imported=imported)
