"""`podium runs`: what the run directories hold, removing what finished ones no longer need, taking in a kernel's."""

from pathlib import Path

from rich.console import Console

from pipelines.runs.foreign import read_foreign_run
from pipelines.tracking.jsonl import TRACKING_FOLDER
from pipelines.runs.importing import ImportedRun, find_runs, import_run, read_origin
from pipelines.workspace import Workspace
from pipelines.runs.directory import RunDirectory
from pipelines.runs.index import list_runs
from pipelines.runs.lock import find_holder
from pipelines.runs.directory import remove_resume_points
from pipelines.screen import Column, format_bytes, format_duration, print_table, say


def list_all(workspace: Workspace, console: Console | None = None) -> None:
    """One line a run, oldest first."""
    records = list_runs(workspace.runs)
    times = [format_duration(record.manifest.get("wall_seconds")) for record in records]
    sizes = [sum(f.stat().st_size for f in record.folder.rglob("*") if f.is_file()) for record in records]
    print_table(
        console,
        [
            Column("experiment", [record.experiment for record in records]),
            Column("run", [record.run for record in records]),
            Column("mode", [record.mode for record in records]),
            Column("status", [record.status for record in records]),
            Column("time", times, is_number=True),
            Column("size", [format_bytes(size) for size in sizes], is_number=True),
        ],
    )


def prune(workspace: Workspace, console: Console | None = None) -> int:
    """Remove the resume points of finished runs; returns the bytes freed. A run that is being written is left alone."""
    freed = 0
    for record in list_runs(workspace.runs):
        if record.status != "finished":
            continue
        if find_holder(record.folder) is not None:
            say(f"{record.folder}: is being written, and left alone", console)
            continue
        freed += remove_resume_points(RunDirectory(record.folder))
    say(f"freed {format_bytes(freed)}: resume points of finished runs", console)
    return freed


def take_in(workspace: Workspace, folder: Path, console: Console | None = None) -> list[ImportedRun]:
    """Import every run below `folder`, a kernel's output or a run directory, into runs/ and MLflow."""
    origin = read_origin(folder)
    paths = find_runs(folder)
    for path in paths:  # all of them before the first is copied
        read_foreign_run(path, TRACKING_FOLDER)
    imported = [import_run(workspace, path, origin) for path in paths]
    for run in imported:
        record = run.directory.read_record()
        place = f"MLflow run {record['tracking']['run_id']}"
        say(f"{run.directory.path}: {run.state}, {record['status']}; {place}", console)
    return imported
