"""What waits to be sent to one MLflow run, as requests of MLflow's own sizes.

A value logged alone costs sqlite 17-23 ms, in a batch 0.1 ms.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from pipelines.tracking.mlflow.sending import Job, Lane, chunks, drain
from pipelines.tracking.mlflow.view import SCORES_VIEW_TAG, build_scores_view
from pipelines.tracking.mlflow.words import cut_param, source_tags, to_mlflow_key
from pipelines.tracking.tracker import LoggedBefore, now_ms, split_params

METRICS_PER_BATCH, PARAMS_PER_BATCH, TAGS_PER_BATCH = 1000, 100, 100
DIGEST_LENGTH = 12
PARENT, RUN_NAME = "mlflow.parentRunId", "mlflow.runName"


class RunLane(Lane):
    """One MLflow run: what was logged and not yet sent, and what the store is known to hold."""

    is_resumed = False

    def __init__(
        self,
        name: str,
        client: MlflowClient,
        experiment_id: str,
        parent: "RunLane | None" = None,
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
        self._may_be_there = False
        self._started_ms = started_ms or now_ms()

    @property
    def has_work(self) -> bool:
        return any((self.rows, self.params, self.tags, self.files, self.ending, self.jobs))

    def take_over(self, run: Run) -> None:
        """Continue a run of the store: its parameters stand, its curves go on after their last step."""
        self.run_id = run.info.run_id
        self._known_params = dict(run.data.params)
        for metric in run.data.to_proto().metrics:
            self.before.note(metric.key, metric.step, metric.value, metric.timestamp)

    def attach(self) -> None:
        """Find the child of a resumed run or create it. (The root has its run from the start.)"""
        if self.run_id is not None:
            return
        assert self.parent is not None
        if self.parent.is_resumed or self._may_be_there:
            siblings = f"tags.`{PARENT}` = '{self.parent.run_id}' and tags.`{RUN_NAME}` = '{self.name}'"
            found = self.client.search_runs([self.experiment_id], siblings, max_results=1)
            if found:
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                self.take_over(found[0])
                return
        self._may_be_there = True  # a server may make it and its answer be lost
        tags = source_tags() | {PARENT: str(self.parent.run_id)}
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
        for key, value in self.before.new_values(named, step, time_ms).items():
            self.before.note(key, step, value, time_ms)  # a resume may repeat what waits in the journal
            if math.isinf(value):
                # MLflow would store 1.8e308, and every chart with this curve would be a flat line.
                if key not in self._nonfinite:
                    self._nonfinite.add(key)
                    self.tags.append({f"nonfinite/{key}": f"{value} at step {step or 0}"})
                value = math.nan
            yield Metric(key, value, time_ms, step or 0)
