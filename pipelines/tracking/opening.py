"""Choosing and opening a tracker, for verbs alone.

This module reaches MLflow, if only inside functions, and what runs in a kernel must not.
"""

from collections.abc import Callable
from pathlib import Path

from pipelines.errors import PodiumError
from pipelines.modes import REAL
from pipelines.screen import say
from pipelines.tracking.journal import ANY_UNSENT
from pipelines.tracking.jsonl import TRACKING_FOLDER, open_jsonl_tracker
from pipelines.tracking.modes import for_mode, name_tracked
from pipelines.tracking.place import Backend, TrackingPlace
from pipelines.tracking.tracker import NullTracker, Tracker
from pipelines.workspace import Workspace

BACKENDS = tuple(Backend)


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
    say: Callable[[str], None] = say,
) -> Tracker:
    """The tracker of one training, or of one that began at `started_ms` elsewhere (MLflow only).

    `competition` is the slug, which names MLflow's experiment. With `resume_run_id` that run is continued. A smoke or
    overfit run, by `mode`, has its mode in its name, and its scores stand under other names (`ModeTracker`). What
    earlier runs could not send to MLflow is sent now, and `say` is told.
    Raises PodiumError where the store cannot be used at all: better before the training than after it.
    """
    if backend == Backend.NONE:
        return NullTracker()
    run_name = name_tracked(run_name, mode)
    if backend == Backend.JSONL:
        tracker = open_jsonl_tracker(run_dir, competition=competition, run_name=run_name)
        if system_metrics:
            tracker.log_with_system_metrics()
        return for_mode(tracker, mode)
    if backend == Backend.MLFLOW:
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
        send_left(workspace, say, only_here=True)
        return for_mode(opened, mode)
    raise PodiumError(f"tracking backend {backend!r}: no such backend; choose one of {', '.join(BACKENDS)}")


def reopen_tracker(
    workspace: Workspace, run_dir: Path, place: TrackingPlace, *, mode: str = REAL, say: Callable[[str], None] = say
) -> Tracker:
    """The tracker of a run that has ended, to write onto it what came later (`lb/public`, a kernel's version).

    `finish` of a reopened tracker stores what was added and leaves the run's status and end time as they were. What the
    run itself could not send is sent before, and `say` is told.
    """
    if place.backend is Backend.NONE:
        return NullTracker()
    if place.backend is Backend.JSONL:
        # A kernel's run was recorded under a path of that machine; after the download it lies in the run directory.
        folder = run_dir if (run_dir / TRACKING_FOLDER).is_dir() else Path(str(place.uri)).parent
        return for_mode(open_jsonl_tracker(folder, reopen=True), mode)
    from pipelines.tracking.mlflow.tracker import reopen_mlflow_tracker

    send_left(workspace, say, run_dir=run_dir)
    return for_mode(reopen_mlflow_tracker(workspace, place=place, run_dir=run_dir), mode)


def kept_elsewhere(workspace: Workspace, tracker: Tracker) -> str | None:
    """The store of a run that is not in this workspace's, nor in MLFLOW_TRACKING_URI: a copied run may report there."""
    if tracker.backend is not Backend.MLFLOW:
        return None
    from pipelines.tracking.mlflow.database import own_uri, tracking_uri
    from pipelines.tracking.mlflow.sending import without_password

    here = {without_password(uri) for uri in (own_uri(workspace), tracking_uri(workspace))}
    return None if tracker.uri in here else tracker.uri


def send_left(
    workspace: Workspace, say: Callable[[str], None], *, run_dir: Path | None = None, only_here: bool = False
) -> list[Path]:
    """Send to MLflow what earlier commands left, of one run or of all; returns what could not be sent.

    With nothing left it looks at a few folders and asks no store.
    """
    folders = [run_dir] if run_dir is not None else [*workspace.runs.glob("*/*"), *_evaluations(workspace).glob("*/*")]
    paths = sorted(path for folder in folders for path in (folder / TRACKING_FOLDER).glob(ANY_UNSENT))
    if not paths:
        return []
    from pipelines.tracking.mlflow import leftovers

    return leftovers.send_left(workspace, paths, say, only_here=only_here)


def _evaluations(workspace: Workspace) -> Path:
    return workspace.build / "search_evaluation"
