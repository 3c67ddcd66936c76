"""`podium runs`: what the run directories hold, removing what finished ones no longer need, taking in a kernel's."""

from pathlib import Path

from rich.console import Console

from pipelines.runs.foreign import read_foreign_run
from pipelines.tracking.jsonl import TRACKING_FOLDER
from pipelines.runs.importing import ImportedRun, find_runs, import_run, read_origin
from pipelines.workspace import Workspace
from pipelines.runs.run import Run
from pipelines.runs.record import RunStatus
from pipelines.runs.lock import find_holder
from pipelines.runs.run import remove_resume_points
from pipelines.screen import Column, format_bytes, format_duration, print_table, say


def list_all(workspace: Workspace, console: Console | None = None) -> None:
    """One line a run, oldest first."""
    runs = Run.list(workspace.runs)
    times = [format_duration(run.record.wall_seconds) for run in runs]
    sizes = [sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file()) for run in runs]
    print_table(
        console,
        [
            Column("experiment", [run.experiment for run in runs]),
            Column("run", [run.id for run in runs]),
            Column("mode", [run.mode for run in runs]),
            Column("status", [run.status for run in runs]),
            Column("time", times, is_number=True),
            Column("size", [format_bytes(size) for size in sizes], is_number=True),
        ],
    )


def prune(workspace: Workspace, console: Console | None = None) -> int:
    """Remove the resume points of finished runs; returns the bytes freed. A run that is being written is left alone."""
    freed = 0
    for run in Run.list(workspace.runs):
        if run.status is not RunStatus.FINISHED:
            continue
        if find_holder(run.path) is not None:
            say(f"{run.path}: is being written, and left alone", console)
            continue
        freed += remove_resume_points(run)
    say(f"freed {format_bytes(freed)}: resume points of finished runs", console)
    return freed


def take_in(workspace: Workspace, folder: Path, console: Console | None = None) -> list[ImportedRun]:
    """Import every run below `folder`, a kernel's output or a run directory, into runs/ and MLflow."""
    origin = read_origin(folder)
    paths = find_runs(folder)
    for path in paths:  # all of them before the first is copied
        read_foreign_run(path, TRACKING_FOLDER)
    imported = [import_run(workspace, path, origin) for path in paths]
    for taken in imported:
        record = taken.run.read_record()
        place = f"MLflow run {record.tracking.run_id if record.tracking else None}"
        say(f"{taken.run.path}: {taken.state}, {record.status}; {place}", console)
    return imported
