"""Tracking with MLflow; the only module that imports it.

Logging only appends to a buffer; the `Sender`'s thread sends it with `log_batch` every few seconds. A value logged
alone costs sqlite 17-23 ms, in a batch 0.1 ms. MLflow's fluent functions and their global state are not used.
"""

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.errors import PodiumError
from pipelines.redaction import cleaned, without_secrets
from pipelines.tracking.mlflow.database import patiently, prepare_uri, tracking_uri
from pipelines.tracking.mlflow.database import prepare_database as prepare_database
from pipelines.tracking.mlflow.sending import Job, Lane, Sender, chunks, describe_error, drain, without_password
from pipelines.tracking.mlflow.view import SCORES_VIEW, SCORES_VIEW_TAG, build_scores_view
from pipelines.tracking.mlflow.words import PARAM_LENGTH, cut_param, is_missing_sqlite, source_tags, to_mlflow_key
from pipelines.tracking.system_metrics import SYSTEM_PREFIX, SYSTEM_SECONDS, SystemSampler
from pipelines.tracking.tracker import LoggedBefore, Tracker, check_status, now_ms, split_params
from pipelines.workspace import Workspace

# Set before the import reads them. A training calls nobody but its own tracking server, and one that is away is found
# out within seconds (MLflow's own patience is four minutes a request), for the buffer tries again anyway.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

# It prints a traceback for every "database is locked", which is expected here and tried again.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

METRICS_PER_BATCH, PARAMS_PER_BATCH, TAGS_PER_BATCH = 1000, 100, 100
TAG_LENGTH, DIGEST_LENGTH = 8000, 12
FLUSH_SECONDS = 10.0
_PARENT, _RUN_NAME = "mlflow.parentRunId", "mlflow.runName"
_MLFLOW_TAGS = {
    "commit": "mlflow.source.git.commit",
    "branch": "mlflow.source.git.branch",
    "source": "mlflow.source.name",
    "user": "mlflow.user",
    "note": "mlflow.note.content",
}
_HOPELESS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}


class _RunLane(Lane):
    """One MLflow run: what was logged and not yet sent, and what the store is known to hold."""

    is_resumed = False

    def __init__(
        self,
        name: str,
        client: MlflowClient,
        experiment_id: str,
        parent: "_RunLane | None" = None,
        started_ms: int | None = None,
    ) -> None:
        super().__init__(name)
        self.client = client
        self.experiment_id = experiment_id
        self.parent = parent
        self.run_id: str | None = None
        self.before = LoggedBefore()
        self.rows: deque[tuple[int, int | None, dict[str, float]]] = deque()
        self.params: deque[dict[str, str]] = deque()
        self.tags: deque[dict[str, str]] = deque()
        self.files: deque[Job] = deque()
        self.ending: deque[Job] = deque()
        self._known_params: dict[str, str] = {}
        self._nonfinite: set[str] = set()
        self._started_ms = started_ms or now_ms()

    @property
    def has_work(self) -> bool:
        return any((self.rows, self.params, self.tags, self.files, self.ending, self.jobs))

    def take_over(self, run: Run) -> None:
        """Continue a run of the store: its parameters stand, its curves go on after their last step."""
        self.run_id = run.info.run_id
        self._known_params = dict(run.data.params)
        for metric in run.data.to_proto().metrics:
            self.before.note(metric.key, metric.step, metric.value)

    def attach(self) -> None:
        """Find the child of a resumed run or create it. (The root has its run from the start.)"""
        if self.run_id is not None:
            return
        assert self.parent is not None
        if self.parent.is_resumed:
            siblings = f"tags.`{_PARENT}` = '{self.parent.run_id}' and tags.`{_RUN_NAME}` = '{self.name}'"
            found = self.client.search_runs([self.experiment_id], siblings, max_results=1)
            if found:
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                self.take_over(found[0])
                return
        tags = source_tags() | {_PARENT: str(self.parent.run_id)}
        self.run_id = self.client.create_run(self.experiment_id, self._started_ms, tags, self.name).info.run_id

    def queue_jobs(self) -> None:
        """Requests of at most MLflow's batch sizes: metrics, parameters, tags, files, and last the run's end."""
        metrics = [metric for row in drain(self.rows) for metric in self._to_metrics(*row)]
        for chunk in chunks(metrics, METRICS_PER_BATCH):
            points = [[metric.timestamp, metric.step, metric.key, str(metric.value)] for metric in chunk]
            self._add_job(partial(self._log_batch, metrics=chunk), metrics=points)
        for params in drain(self.params):
            fresh, changed = split_params(
                self._known_params, {key: cut_param(key, text) for key, text in params.items()}
            )
            self._known_params |= fresh
            self.tags.append(changed)
            for items in chunks(list(fresh.items()), PARAMS_PER_BATCH):
                batch = [Param(key, value) for key, value in items]
                self._add_job(partial(self._log_batch, params=batch), params=dict(items))
        tags = {key: value for some in drain(self.tags) for key, value in some.items()}
        for items in chunks(list(tags.items()), TAGS_PER_BATCH):
            self._add_job(partial(self._log_batch, tags=[RunTag(key, value) for key, value in items]), tags=dict(items))
        self.jobs.extend(drain(self.files))
        self.jobs.extend(drain(self.ending))

    def store_text(self, text: str, name: str) -> None:
        self.client.log_text(str(self.run_id), text, name)

    def store_file(self, path: Path, folder: str) -> None:
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(str(self.run_id), str(path), folder or None)

    def store_data(self, name: str, digest: str, path: Path) -> None:
        dataset = Dataset(name, digest[:DIGEST_LENGTH], "local", json.dumps({"uri": str(path)}))
        context = InputTag("mlflow.data.context", name)
        self.client.log_inputs(str(self.run_id), datasets=[DatasetInput(dataset, [context])])

    def store_view(self) -> None:
        """Let the runs table of this competition show the scores that this run has."""
        previous = self.client.get_experiment(self.experiment_id).tags.get(SCORES_VIEW_TAG)
        view = build_scores_view(self.client.get_run(str(self.run_id)).data.metrics, previous)
        if view != previous:
            self.client.set_experiment_tag(self.experiment_id, SCORES_VIEW_TAG, view)

    def store_end(self, status: str, ended_ms: int) -> None:
        self.client.set_terminated(str(self.run_id), status, ended_ms)

    def _log_batch(self, **batch: Sequence[Metric] | Sequence[Param] | Sequence[RunTag]) -> None:
        self.client.log_batch(str(self.run_id), **batch)  # type: ignore[arg-type]

    def _add_job(self, send: partial[None], **content: object) -> None:
        self.jobs.append(Job(send, content))

    def _to_metrics(self, time_ms: int, step: int | None, values: Mapping[str, float]) -> Iterator[Metric]:
        named = {to_mlflow_key(key): value for key, value in values.items()}
        for key, value in self.before.new_values(named, step).items():
            if math.isinf(value):
                # MLflow would store 1.8e308, and every chart with this curve would be a flat line.
                if key not in self._nonfinite:
                    self._nonfinite.add(key)
                    self.tags.append({f"nonfinite/{key}": f"{value} at step {step or 0}"})
                value = math.nan
            yield Metric(key, value, time_ms, step or 0)


class MlflowTracker:
    """One MLflow run. Every call but `flush` and the root's `finish` only appends to a buffer."""

    backend: str = "mlflow"

    def __init__(self, sender: Sender, lane: _RunLane, *, uri: str, keeps_end: bool) -> None:
        self.uri: str | None = uri
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
    def num_unsent(self) -> int:
        """How many requests the store did not take; they are written down in the run's tracking/unsent.jsonl."""
        return self._sender.num_unsent

    @property
    def sending_seconds(self) -> float:
        """CPU seconds spent on sending so far: the price of tracking beside the calls themselves."""
        return self._sender.busy_seconds

    def log_params(self, params: Mapping[str, object]) -> None:
        """A value beyond 6,000 characters is cut and stored whole as params/<key>.txt."""
        texts = {to_mlflow_key(key): str(value) for key, value in cleaned(params).items()}
        self._lane.params.append(texts)
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

    def log_tags(self, tags: Mapping[str, str]) -> None:
        texts = {_MLFLOW_TAGS.get(key) or to_mlflow_key(key): value for key, value in cleaned(tags).items()}
        self._lane.tags.append({key: str(value)[:TAG_LENGTH] for key, value in texts.items()})

    def log_text(self, text: str, name: str) -> None:
        self._lane.files.append(Job(partial(self._lane.store_text, without_secrets(text), name), {"text": name}))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        path = path.absolute()
        self._lane.files.append(Job(partial(self._lane.store_file, path, folder), {"artifact": path}))

    def log_data(self, name: str, digest: str, path: Path) -> None:
        """MLflow's dataset column shows 12 characters of the digest; the whole one becomes the tag `data.<name>`."""
        job = Job(partial(self._lane.store_data, name, digest, path.absolute()), {"data": name, "digest": digest})
        self._lane.files.append(job)
        self.log_tags({f"data.{name}": digest})

    def child(self, name: str, started_ms: int | None = None) -> Tracker:
        """A nested run, whose curves also appear on this one as `<key>/<name>`."""
        if name not in self._children:
            lane = _RunLane(name, self._lane.client, self._lane.experiment_id, self._lane, started_ms)
            self._children[name] = MlflowTracker(self._sender, lane, uri=str(self.uri), keeps_end=self._keeps_end)
        return self._children[name]

    def log_with_system_metrics(self, seconds: float = SYSTEM_SECONDS) -> None:
        """Let the sending thread also read the machine's figures."""
        sampler = SystemSampler(first_step=self._lane.before.next_step(SYSTEM_PREFIX), seconds=seconds)
        self._sender.on_tick = partial(sampler.log_if_due, self.log_metrics)

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
        if self._lane.parent is None:
            self._lane.ending.append(Job(self._lane.store_view, {"view": SCORES_VIEW}))
            self._sender.stop()


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
    client = _connect(uri, workspace)
    try:
        experiment_id = patiently(lambda: _experiment_id(client, uri, workspace, competition))
        lane = _RunLane(run_name, client, experiment_id)
        found = patiently(lambda: _find_run(client, resume_run_id)) if resume_run_id else None
        if found is None:
            tags = source_tags() | {"run_dir": os.path.relpath(run_dir, workspace.root)}
            found = patiently(lambda: client.create_run(experiment_id, started_ms, tags, run_name))
        else:
            run_id = found.info.run_id
            lane.experiment_id, lane.is_resumed = found.info.experiment_id, True
            patiently(lambda: client.update_run(run_id, status="RUNNING"))
        lane.take_over(found)
    except MlflowException as error:
        raise _unusable(uri, error) from error
    tracker = _start(lane, run_dir, uri=uri, flush_seconds=flush_seconds)
    if system_metrics:
        tracker.log_with_system_metrics(system_seconds)
    return tracker


def reopen_mlflow_tracker(workspace: Workspace, *, run_id: str, uri: str, run_dir: Path) -> MlflowTracker:
    """A tracker that adds to a run and leaves its status and end time alone.

    Raises PodiumError when the run is not to be found.
    """
    wanted = tracking_uri(workspace)
    if without_password(wanted) != uri and not is_missing_sqlite(uri):
        wanted = uri  # the run lives where it was made; a checkout that moved finds its database at the new place
    client = _connect(wanted, workspace)
    found = patiently(lambda: _find_run(client, run_id))
    if found is None:
        raise PodiumError(
            f"MLflow run {run_id} is not in {without_password(wanted)}: set MLFLOW_TRACKING_URI to its home"
        )
    lane = _RunLane(found.info.run_name, client, found.info.experiment_id)
    lane.is_resumed = True
    lane.take_over(found)
    return _start(lane, run_dir, uri=wanted, flush_seconds=FLUSH_SECONDS, keeps_end=True)


def _start(lane: _RunLane, run_dir: Path, *, uri: str, flush_seconds: float, keeps_end: bool = False) -> MlflowTracker:
    unsent = run_dir / "tracking" / "unsent.jsonl"
    sender = Sender(unsent, flush_seconds=flush_seconds, is_hopeless=_is_hopeless)
    tracker = MlflowTracker(sender, lane, uri=without_password(uri), keeps_end=keeps_end)
    sender.start()
    return tracker


def _connect(uri: str, workspace: Workspace) -> MlflowClient:
    try:
        prepare_uri(uri, workspace)
        client = MlflowClient(uri)
        patiently(lambda: client.search_experiments(max_results=1))
    except PodiumError:
        raise
    except Exception as error:
        raise _unusable(uri, error) from error
    return client


def _experiment_id(client: MlflowClient, uri: str, workspace: Workspace, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server knows best where its artifacts lie; a database on its own would put them under the working directory.
        is_server = urlsplit(uri).scheme in ("http", "https")
        location = None if is_server else (workspace.root.absolute() / "mlartifacts" / name).as_uri()
        try:
            return str(client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another training may have been faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        cure = f"restore it with `mlflow experiments restore -x {found.experiment_id}`"
        raise PodiumError(f"the MLflow experiment {name!r} was deleted: {cure}")
    return str(found.experiment_id)


def _find_run(client: MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _unusable(uri: str, error: Exception) -> PodiumError:
    cure = "check MLFLOW_TRACKING_URI, or track into files with tracking.name=jsonl"
    return PodiumError(f"MLflow at {without_password(uri)} cannot be used: {describe_error(error)}; {cure}")


def _is_hopeless(error: Exception) -> bool:
    """Whether no second try can cure it; everything else may be a lock or a server that is away."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", None) in _HOPELESS
