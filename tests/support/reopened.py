"""The tracker of a run that has ended, by the content of its run.json."""

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.modes import REAL
from pipelines.runs.run import run_place
from pipelines.screen import say
from pipelines.tracking.opening import reopen_tracker
from pipelines.tracking.place import NOT_TRACKED, TrackingPlace
from pipelines.tracking.tracker import Tracker
from pipelines.workspace import Workspace


def reopen(workspace: Workspace, run_json: Mapping[str, Any], say: Callable[[str], None] = say) -> Tracker:
    """As `podium submit` opens it."""
    place = TrackingPlace.of(run_json["tracking"], "run.json") if run_json.get("tracking") else NOT_TRACKED
    folder = run_place(workspace.runs, str(run_json.get("experiment")), str(run_json.get("run")))
    return reopen_tracker(workspace, folder, place, mode=run_json.get("mode") or REAL, say=say)
