"""Sending what earlier commands left behind, and ending the MLflow runs of processes that are gone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from components.files.digests import read_object
from pipelines.errors import PodiumError
from pipelines.records import DamagedRecord, Record
from pipelines.tracking.journal import Journal, Line, Opening
from pipelines.tracking.mlflow.database import tracking_uri
from pipelines.tracking.mlflow.lane import PARENT
from pipelines.tracking.mlflow.sending import describe_error, without_password
from pipelines.tracking.mlflow.store import Home, find_home, is_away
from pipelines.tracking.mlflow.tracker import MlflowTracker, lane_of, track
from pipelines.tracking.place import NOT_TRACKED, Backend, TrackingPlace
from pipelines.workspace import Workspace

_STATUSES = {"finished": "FINISHED", "failed": "FAILED"}
_SUMMARIES = ("cv/", "oof/")


@dataclass(frozen=True, kw_only=True)
class TrackedRun(Record):
    """What run.json says to a tracker."""

    status: str = "running"
    finished: str | None = None
    mode: str | None = None
    tracking: TrackingPlace = field(default=NOT_TRACKED)


def send_left(
    workspace: Workspace, paths: list[Path], say: Callable[[str], None], *, only_here: bool = False
) -> list[Path]:
    """Send what journals hold, and remove them; returns those that could not be sent. Says a line for each.

    One whose process lives sends its own and is passed over. With `only_here` no store but this workspace's is asked.
    """
    waiting: list[Path] = []
    silence: Exception | None = None
    for path in paths:
        journal = Journal.take(path)
        if journal is None:
            continue
        # Of a store that does not answer nothing more is asked.
        error = silence or _try(workspace, journal, say, only_here=only_here)
        journal.close(is_all_sent=False)
        if error is not None:
            say(f"{path}: could not be sent ({describe_error(error)})")
            waiting.append(path)
            silence = error if is_away(error) else None
    return waiting


def _try(workspace: Workspace, journal: Journal, say: Callable[[str], None], *, only_here: bool) -> Exception | None:
    """Whatever a store may raise, the command that this precedes goes on."""
    try:
        return _send(workspace, journal, say, only_here=only_here)
    except Exception as error:
        return error


def _send(workspace: Workspace, journal: Journal, say: Callable[[str], None], *, only_here: bool) -> Exception | None:
    run_dir = journal.path.parent.parent
    run = _read_run(run_dir)
    place = journal.opening.place if journal.opening else run.tracking
    home = _home(workspace, place, journal, only_here=only_here)
    if home is None:
        journal.close(is_all_sent=True)
        say(f"{journal.path}: belongs to the run that this one was copied from, and was removed")
        return None
    if journal.opening is None:
        journal.begin(Opening(place=place, file=str(journal.path.absolute())))
    keeps_end = journal.opening is not None and journal.opening.keeps_end
    tracker = track(lane_of(home.client, home.run), journal, run_dir, uri=home.uri, keeps_end=keeps_end)
    status, ended_ms = _end(journal, run)
    if not keeps_end:
        _adopt_open_children(home, tracker)
    tracker.replay(journal.left)
    if status == "FINISHED" and not keeps_end:
        _log_summaries(tracker, journal.left, run, run_dir)
    if home.run.info.status != "RUNNING":
        tracker.keep_end()
    tracker.start()
    tracker.flush()
    tracker.finish_at(status, ended_ms)
    if tracker.num_unsent:
        return tracker.last_error or PodiumError(f"{tracker.num_unsent} entries are left")
    end = f"; its MLflow run, whose process is gone, is {status} now" if home.run.info.status == "RUNNING" else ""
    say(f"{run_dir}: {len(journal.left)} entries that were left unsent are in MLflow now{end}")
    return None


def _home(workspace: Workspace, place: TrackingPlace, journal: Journal, *, only_here: bool) -> Home | None:
    """Where the run is kept; None for a copy of a journal that is still at its own place and sends itself."""
    if place.backend is not Backend.MLFLOW or place.run_id is None:
        raise PodiumError(f"nothing says which MLflow run it belongs to; remove {journal.path}")
    here = without_password(tracking_uri(workspace))
    try:
        home = find_home(workspace, place, only_here=only_here)
    except PodiumError as error:
        if only_here and place.uri != here and not is_away(error):
            raise PodiumError(f"its run is in {place.uri}, where `podium tracking send` sends it") from None
        raise
    original = Path(journal.opening.file) if journal.opening else journal.path
    is_copy = original.exists() and not original.samefile(journal.path)
    return None if is_copy and without_password(home.uri) != here else home


def _read_run(run_dir: Path) -> TrackedRun:
    try:
        return TrackedRun.read(run_dir / "run.json")
    except DamagedRecord:
        return TrackedRun()


def _end(journal: Journal, run: TrackedRun) -> tuple[str, int]:
    """How and when the run ended: as its tracker said, else as run.json says, else it was killed."""
    said = next((line for line in reversed(journal.left) if line.end is not None and not line.run), None)
    if said is not None:
        return str(said.end), said.time
    status = _STATUSES.get(run.status, "KILLED")
    if run.finished is None or run.status == "running":
        return status, journal.changed_ms
    try:
        return status, int(1000 * datetime.fromisoformat(run.finished).timestamp())
    except ValueError:  # a run of others may say anything
        return status, journal.changed_ms


def _adopt_open_children(home: Home, tracker: MlflowTracker) -> None:
    nested = f"tags.`{PARENT}` = '{home.run.info.run_id}' and attributes.status = 'RUNNING'"
    for child in home.client.search_runs([home.run.info.experiment_id], nested):
        tracker.adopt(child)


def _log_summaries(tracker: MlflowTracker, left: list[Line], run: TrackedRun, run_dir: Path) -> None:
    """The scores of metrics.json that neither the store nor the journal has."""
    path = run_dir / "metrics.json"
    scores: Mapping[str, float] = read_object(path) if path.is_file() else {}
    mode = f"{run.mode}/" if run.mode else ""
    named = {mode + key: value for key, value in scores.items() if key.startswith(_SUMMARIES)}
    known = {key for line in left if not line.run for key in line.values}
    tracker.log_metrics({key: value for key, value in named.items() if key not in known})
