"""Choosing and opening a tracker, for verbs alone.

This module reaches MLflow, if only inside functions, and what runs in a kernel must not.
"""

from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import PodiumError
from pipelines.modes import REAL, read_mode
from pipelines.tracking.jsonl import TRACKING_FOLDER, open_jsonl_tracker
from pipelines.tracking.modes import for_mode, name_tracked
from pipelines.tracking.tracker import NullTracker, Tracker
from pipelines.workspace import Workspace

BACKENDS = ("mlflow", "jsonl", "none")


def open_tracker(
    backend: str,
    workspace: Workspace,
    *,
    competition: str,
    run_name: str,
    run_dir: Path,
    resume_run_id: str | None,
    system_metrics: bool = False,
    flush_seconds: float = 10.0,
    started_ms: int | None = None,
    mode: str = REAL,
) -> Tracker:
    """The tracker of one training, or of one that began at `started_ms` elsewhere (MLflow only).

    `competition` is the slug, which names MLflow's experiment. With `resume_run_id` that run is continued. A smoke or
    overfit run, by `mode`, has its mode in its name, and its scores stand under other names (`ModeTracker`).
    Raises PodiumError where the store cannot be used at all: better before the training than after it.
    """
    if backend == "none":
        return NullTracker()
    run_name = name_tracked(run_name, mode)
    if backend == "jsonl":
        tracker = open_jsonl_tracker(run_dir, competition=competition, run_name=run_name)
        if system_metrics:
            tracker.log_with_system_metrics()
        return for_mode(tracker, mode)
    if backend == "mlflow":
        from pipelines.tracking.mlflow.tracker import open_mlflow_tracker

        opened = open_mlflow_tracker(
            workspace,
            competition=competition,
            run_name=run_name,
            run_dir=run_dir,
            resume_run_id=resume_run_id,
            system_metrics=system_metrics,
            flush_seconds=flush_seconds,
            started_ms=started_ms,
        )
        return for_mode(opened, mode)
    raise PodiumError(f"tracking backend {backend!r}: no such backend; choose one of {', '.join(BACKENDS)}")


def reopen_tracker(workspace: Workspace, run_json: Mapping[str, object]) -> Tracker:
    """The tracker of a run that has ended, to write onto it what came later (`lb/public`, a kernel's version).

    `finish` of a reopened tracker stores what was added and leaves the run's status and end time as they were.
    """
    record = run_json.get("tracking") or {}
    assert isinstance(record, Mapping)
    backend, run_id, uri = (record.get(key) for key in ("backend", "run_id", "uri"))
    mode = read_mode(run_json)
    run_dir = workspace.runs / str(run_json.get("experiment")) / str(run_json.get("run"))
    if backend in (None, "none"):
        return NullTracker()
    if backend == "jsonl":
        # A kernel's run was recorded under a path of that machine; after the download it lies in the run directory.
        folder = run_dir if (run_dir / TRACKING_FOLDER).is_dir() else Path(str(uri)).parent
        return for_mode(open_jsonl_tracker(folder, reopen=True), mode)
    if backend == "mlflow":
        from pipelines.tracking.mlflow.tracker import reopen_mlflow_tracker

        return for_mode(reopen_mlflow_tracker(workspace, run_id=str(run_id), uri=str(uri), run_dir=run_dir), mode)
    raise PodiumError(f"run.json tracking.backend {backend!r}: no such backend; expected one of {', '.join(BACKENDS)}")
