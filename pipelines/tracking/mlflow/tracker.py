"""Tracking with MLflow: logging appends to a buffer and to the run's journal, and a thread sends it every few seconds.

MLflow's fluent functions and their global state are not used.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines.redaction import cleaned, without_secrets
from pipelines.tracking.journal import UNSENT, Journal, Line, Opening, beside
from pipelines.tracking.jsonl import TRACKING_FOLDER
from pipelines.tracking.mlflow.database import patiently, tracking_uri
from pipelines.tracking.mlflow.database import prepare_database as prepare_database
from pipelines.tracking.mlflow.lane import RunLane
from pipelines.tracking.mlflow.sending import Job, Sender, describe_error, without_password
from pipelines.tracking.mlflow.store import (
    connect,
    experiment_id_of,
    find_home,
    find_run,
    is_away,
    is_hopeless,
    unusable,
)
from pipelines.tracking.mlflow.view import SCORES_VIEW
from pipelines.tracking.mlflow.words import PARAM_LENGTH, source_tags, to_mlflow_key
from pipelines.tracking.place import Backend, TrackingPlace
from pipelines.tracking.recorded import to_json
from pipelines.tracking.system_metrics import SYSTEM_PREFIX, SYSTEM_SECONDS, SystemSampler
from pipelines.tracking.tracker import check_status, now_ms, tracking_record
from pipelines.workspace import Workspace

TAG_LENGTH = 8000
FLUSH_SECONDS = 10.0
_MLFLOW_TAGS = {
    "commit": "mlflow.source.git.commit",
    "branch": "mlflow.source.git.branch",
    "source": "mlflow.source.name",
    "user": "mlflow.user",
    "note": "mlflow.note.content",
}
_log = logging.getLogger(__name__)


class MlflowTracker:
    """One MLflow run. Every call but `flush` and the root's `finish` only appends to a buffer."""

    backend: Backend = Backend.MLFLOW
    num_unsent: int = 0

    def __init__(self, sender: Sender, lane: RunLane, *, uri: str, run_dir: Path, keeps_end: bool) -> None:
        self.uri: str | None = uri
        self._run_dir = run_dir
        self._sender = sender
        self._lane = lane
        self._keeps_end = keeps_end
        self._children: dict[str, MlflowTracker] = {}
        self._is_over = False
        sender.lanes.append(lane)

    @property
    def run_id(self) -> str | None:
        """MLflow's id; a child has one as soon as its first values were sent."""
        return self._lane.run_id

    @property
    def last_error(self) -> Exception | None:
        """What the store raised last, if it ever did."""
        return self._sender.last_error

    @property
    def sending_seconds(self) -> float:
        """CPU seconds spent on sending so far: the price of tracking beside the calls themselves."""
        return self._sender.busy_seconds

    def log_params(self, params: Mapping[str, object]) -> None:
        """A value beyond 6,000 characters is cut and stored whole as params/<key>.txt."""
        texts = {to_mlflow_key(key): str(value) for key, value in cleaned(params).items()}
        self._lane.params.append(texts)
        self._note(Line(run=self._name, time=now_ms(), params=texts))
        for key, text in texts.items():
            if len(text) > PARAM_LENGTH:
                self.log_text(text, f"params/{key}.txt")

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """An infinite value is stored as NaN, which charts leave out, and named by the tag `nonfinite/<key>`."""
        self.log_metrics_at(values, step, now_ms())

    def log_metrics_at(self, values: Mapping[str, float], step: int | None, time_ms: int) -> None:
        numbers = {key: float(value) for key, value in values.items()}
        self._lane.rows.append((time_ms, step, numbers))
        if self._lane.parent is not None and step is not None:
            # MLflow's compare page takes runs of one level: there a fold's curves stand below the run's scores.
            suffixed = {f"{key}/{self._lane.name.split()[-1]}": value for key, value in numbers.items()}
            self._lane.parent.rows.append((time_ms, step, suffixed))
        words = {key: to_json(value) for key, value in numbers.items()}
        self._note(Line(run=self._name, time=max(time_ms, 1), step=step, values=words))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        texts = {_MLFLOW_TAGS.get(key) or to_mlflow_key(key): value for key, value in cleaned(tags).items()}
        texts = {key: str(value)[:TAG_LENGTH] for key, value in texts.items()}
        self._lane.tags.append(texts)
        self._note(Line(run=self._name, time=now_ms(), tags=texts))

    def log_text(self, text: str, name: str) -> None:
        text = without_secrets(text)
        self._lane.files.append(Job(partial(self._lane.store_text, text, name), {"text": name}))
        self._note(Line(run=self._name, time=now_ms(), text=name, content=text))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        path = path.absolute()
        self._lane.files.append(Job(partial(self._lane.store_file, path, folder), {"artifact": path}))
        own = self._run_dir.absolute()
        place = path.relative_to(own) if path.is_relative_to(own) else path
        self._note(Line(run=self._name, time=now_ms(), artifact=str(place), folder=folder))

    def log_data(self, name: str, digest: str, path: Path) -> None:
        """MLflow's dataset column shows 12 characters of the digest; the whole one becomes the tag `data.<name>`."""
        path = path.absolute()
        job = Job(partial(self._lane.store_data, name, digest, path), {"data": name, "digest": digest})
        self._lane.files.append(job)
        self._note(Line(run=self._name, time=now_ms(), data=name, digest=digest, path=str(path)))
        self.log_tags({f"data.{name}": digest})

    def child(self, name: str, started_ms: int | None = None) -> "MlflowTracker":
        """A nested run, whose curves also appear on this one as `<key>/<name>`."""
        if name not in self._children:
            lane = RunLane(name, self._lane.client, self._lane.experiment_id, self._lane, started_ms)
            inner = MlflowTracker(
                self._sender, lane, uri=str(self.uri), run_dir=self._run_dir, keeps_end=self._keeps_end
            )
            self._children[name] = inner
            if started_ms is not None:
                self._note(Line(run=name, time=now_ms(), started=started_ms))
        return self._children[name]

    def adopt(self, run: Run) -> None:
        """Take a nested run of the store for a child, so that it ends with this one."""
        self.child(str(run.info.run_name))._lane.take_over(run)

    def log_with_system_metrics(self, seconds: float = SYSTEM_SECONDS) -> None:
        """Let the sending thread also read the machine's figures."""
        sampler = SystemSampler(first_step=self._lane.before.next_step(SYSTEM_PREFIX), seconds=seconds)
        self._sender.on_tick = partial(sampler.log_if_due, self.log_metrics)

    def replay(self, lines: Iterable[Line]) -> None:
        """Repeat what a journal holds, nested runs' ends included; to be called before anything is sent.

        The lines stay where they are until the store has them, and what it has already is not stored twice.
        """
        self._sender.journal.is_paused = True
        for line in lines:
            inner = self.child(line.run, line.started) if line.run else self
            if line.values:
                inner.log_metrics_at({key: float(value) for key, value in line.values.items()}, line.step, line.time)
            if line.params:
                inner.log_params(line.params)
            if line.tags:
                inner.log_tags(line.tags)
            if line.text is not None:
                inner.log_text(line.content, line.text)
            if line.artifact is not None:
                inner.log_artifact(self._run_dir / line.artifact, line.folder)
            if line.data is not None:
                inner.log_data(line.data, line.digest, Path(line.path))
            if line.end is not None and line.run:
                inner.finish_at(line.end, line.time)
        self._sender.journal.is_paused = False

    def keep_end(self) -> None:
        """Leave this run's status and end time as they are; nested ones still end."""
        self._keeps_end = True

    def start(self) -> None:
        """Begin to send."""
        self._sender.start()

    def flush(self) -> None:
        self._sender.send_all()

    def finish(self, status: str) -> None:
        self.finish_at(status, now_ms())

    def finish_at(self, status: str, ended_ms: int) -> None:
        check_status(status)
        if self._is_over:
            return
        self._is_over = True
        for tracker in self._children.values():
            tracker.finish_at(status, ended_ms)
        # A child of a resumed run to which nothing was added keeps the end it had.
        if not self._keeps_end and (self.run_id is not None or self._lane.has_work):
            self._lane.ending.append(Job(partial(self._lane.store_end, status, ended_ms), {"status": status}))
            self._note(Line(run=self._name, time=max(ended_ms, 1), end=status))
        if self._lane.parent is None:
            self._lane.ending.append(Job(self._lane.store_view, {"view": SCORES_VIEW}))
            self._close(is_all_sent=self._sender.stop())

    def _close(self, *, is_all_sent: bool) -> None:
        journal, error = self._sender.journal, self._sender.last_error
        self.num_unsent = 0 if is_all_sent else max(1, journal.count_left())
        journal.close(is_all_sent=is_all_sent)
        if not is_all_sent:
            _log.warning(
                "%d entries could not be sent to %s (%s); they lie in %s, and the next `podium train`, `resume`, "
                "`submit` or `tracking send` sends them",
                self.num_unsent,
                self.uri,
                describe_error(error) if error else "no answer",
                journal.path,
            )

    @property
    def _name(self) -> str:
        """As lines of the journal name it."""
        return "" if self._lane.parent is None else self._lane.name

    def _note(self, line: Line) -> None:
        """After it was queued, never before: see `Sender`."""
        self._sender.journal.add(line)


def open_mlflow_tracker(
    workspace: Workspace,
    *,
    competition: str,
    run_name: str,
    run_dir: Path,
    resume_run_id: str | None = None,
    system_metrics: bool = False,
    flush_seconds: float = FLUSH_SECONDS,
    system_seconds: float = SYSTEM_SECONDS,
    started_ms: int | None = None,
) -> MlflowTracker:
    """A new run of the MLflow experiment `competition`, or `resume_run_id` continued (a new one if it is gone).

    `started_ms` is when a run began that is imported.
    Raises PodiumError when the store does not answer or its schema is older than the library.
    """
    uri = tracking_uri(workspace)
    client = connect(uri, workspace)
    # Another process may be sending what this run left; it has done so when the journal can be opened.
    journal = Journal.open(run_dir / TRACKING_FOLDER / UNSENT)
    try:
        experiment_id = patiently(lambda: experiment_id_of(client, uri, workspace, competition))
        lane = RunLane(run_name, client, experiment_id)
        found = patiently(lambda: find_run(client, resume_run_id)) if resume_run_id else None
        if found is None:
            tags = source_tags() | {"run_dir": os.path.relpath(run_dir, workspace.root)}
            found = patiently(lambda: client.create_run(experiment_id, started_ms, tags, run_name))
        else:
            run_id = found.info.run_id
            lane.experiment_id, lane.is_resumed = found.info.experiment_id, True
            patiently(lambda: client.update_run(run_id, status="RUNNING"))
        lane.take_over(found)
    except BaseException as error:
        journal.close(is_all_sent=journal.size == 0)
        if isinstance(error, MlflowException):
            raise unusable(uri, error) from error
        raise
    tracker = track(lane, journal, run_dir, uri=uri, flush_seconds=flush_seconds)
    journal.begin(Opening(place=tracking_record(tracker), file=str(journal.path.absolute())))
    tracker.replay(line for line in journal.left if line.end is None)
    if system_metrics:
        tracker.log_with_system_metrics(system_seconds)
    tracker.start()
    return tracker


def reopen_mlflow_tracker(workspace: Workspace, *, place: TrackingPlace, run_dir: Path) -> MlflowTracker:
    """A tracker that adds to a run and leaves its status and end time alone.

    Raises PodiumError when the run is not to be found.
    """
    home = find_home(workspace, place)
    lane = lane_of(home.client, home.run)
    # A name of its own: whoever else writes to the run meanwhile is not waited for.
    journal = Journal.open(beside(run_dir / TRACKING_FOLDER / UNSENT))
    tracker = track(lane, journal, run_dir, uri=home.uri, keeps_end=True)
    journal.begin(Opening(place=tracking_record(tracker), file=str(journal.path.absolute()), keeps_end=True))
    tracker.start()
    return tracker


def lane_of(client: MlflowClient, run: Run) -> RunLane:
    """What goes on with a run of the store."""
    lane = RunLane(run.info.run_name, client, run.info.experiment_id)
    lane.is_resumed = True
    lane.take_over(run)
    return lane


def track(
    lane: RunLane,
    journal: Journal,
    run_dir: Path,
    *,
    uri: str,
    flush_seconds: float = FLUSH_SECONDS,
    keeps_end: bool = False,
) -> MlflowTracker:
    """The tracker of a run of the store, which sends nothing before its `start`."""
    sender = Sender(journal, flush_seconds=flush_seconds, is_hopeless=is_hopeless, is_away=is_away)
    return MlflowTracker(sender, lane, uri=without_password(uri), run_dir=run_dir, keeps_end=keeps_end)
