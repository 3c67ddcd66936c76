"""What a tracker is told of a smoke or overfit run: its scores never under the names of real scores."""

import json
import shutil

import pytest
from mlflow.tracking import MlflowClient
from reopened import reopen
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.keeping import take_in
from pipelines.tracking.jsonl import JsonlTracker, open_jsonl_tracker, read_run
from pipelines.tracking.mlflow.view import build_scores_view
from pipelines.tracking.modes import ModeTracker, for_mode, name_tracked
from pipelines.tracking.opening import open_tracker
from pipelines.tracking.tracker import NullTracker, tracking_record
from pipelines.workspace import Workspace

RUN = "20261121-100000-bbbb"
SCORES = {"cv/auc": 0.9, "cv/auc_std": 0.1, "oof/auc": 0.8, "time/wall_seconds": 3.0}


@pytest.fixture
def workspace(tmp_path, database_template, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "checkout")
    workspace.root.mkdir()
    shutil.copy(database_template, workspace.mlflow_db)
    return workspace


def train(workspace, backend, mode, resume_run_id=None):
    tracker = open_tracker(
        backend,
        workspace,
        competition="tiny-task",
        run_name=f"first_try {RUN}",
        run_dir=workspace.runs / "first_try" / RUN,
        resume_run_id=resume_run_id,
        mode=mode,
    )
    tracker.log_params({"seed": 1})
    tracker.log_metrics(SCORES)
    fold = tracker.child("fold0")
    fold.log_metrics({"train/loss": 0.5, "valid/auc": 0.7}, step=4)
    fold.log_metrics({"auc": 0.9, "map@5": 0.3})
    fold.finish("FINISHED")
    tracker.finish("FINISHED")
    return tracker


def add_a_score(workspace, tracker, mode):
    record = {"experiment": "first_try", "run": RUN, "mode": mode, "tracking": tracking_record(tracker).entries()}
    reopened = reopen(workspace, record)
    reopened.log_metrics({"lb/public": 0.7, "lb/private": 0.6})
    reopened.finish("FINISHED")


def test_mlflow_has_them_under_their_own_names(workspace):
    tracker = train(workspace, "mlflow", "smoke")
    add_a_score(workspace, tracker, "smoke")
    client = MlflowClient(tracker.uri)
    run = client.get_run(tracker.run_id)
    assert run.info.run_name == f"smoke first_try {RUN}"
    assert run.data.metrics == {
        "smoke/cv/auc": 0.9,
        "smoke/cv/auc_std": 0.1,
        "smoke/oof/auc": 0.8,
        "smoke/lb/public": 0.7,
        "smoke/lb/private": 0.6,
        "time/wall_seconds": 3.0,
        "train/loss/fold0": 0.5,
        "valid/auc/fold0": 0.7,
    }
    (fold,) = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert (fold.info.run_name, fold.data.tags["mode"]) == ("smoke fold0", "smoke")
    assert fold.data.metrics == {"train/loss": 0.5, "valid/auc": 0.7, "smoke/auc": 0.9, "smoke/map_5": 0.3}
    assert json.loads(build_scores_view(run.data.metrics))["selectedColumns"][0].startswith("params.")


def test_a_resumed_one_is_the_same_run_and_has_the_same_folds(workspace):
    tracker = train(workspace, "mlflow", "overfit")
    again = train(workspace, "mlflow", "overfit", resume_run_id=tracker.run_id)
    assert again.run_id == tracker.run_id
    client = MlflowClient(tracker.uri)
    found = client.search_runs([client.get_run(tracker.run_id).info.experiment_id])
    assert sorted(run.info.run_name for run in found) == [f"overfit first_try {RUN}", "overfit fold0"]


def test_json_lines_have_them_under_their_own_names(workspace):
    tracker = train(workspace, "jsonl", "overfit")
    add_a_score(workspace, tracker, "overfit")
    run = read_run(workspace.runs / "first_try" / RUN / "tracking")
    assert run.name == f"overfit first_try {RUN}"
    keys = {key for row in run.metrics for key in row.values}
    assert keys - {key for key in keys if key.startswith("system/")} == {
        "overfit/cv/auc",
        "overfit/cv/auc_std",
        "overfit/oof/auc",
        "overfit/lb/public",
        "overfit/lb/private",
        "time/wall_seconds",
    }
    fold = run.children["fold0"]
    assert fold.tags["mode"] == "overfit"
    assert [row.values for row in fold.metrics] == [
        {"train/loss": 0.5, "valid/auc": 0.7},
        {"overfit/auc": 0.9, "overfit/map@5": 0.3},
    ]


@pytest.mark.parametrize("backend", ["mlflow", "jsonl", "none"])
def test_a_real_run_is_tracked_as_ever(workspace, backend):
    tracker = train(workspace, backend, "real")
    assert not isinstance(tracker, ModeTracker)
    add_a_score(workspace, tracker, None)
    if backend == "mlflow":
        run = MlflowClient(tracker.uri).get_run(tracker.run_id)
        assert run.info.run_name == f"first_try {RUN}"
        assert {"cv/auc", "oof/auc", "lb/public"} <= set(run.data.metrics)


def test_nothing_is_kept_where_nothing_is_to_be_kept():
    tracker = for_mode(NullTracker(), "smoke")
    assert (tracker.backend, tracker.run_id, tracker.uri) == ("none", None, None)
    tracker.child("fold0").log_metrics({"auc": 1.0})
    tracker.finish("FINISHED")


def test_a_name_says_its_mode_once():
    assert name_tracked("first_try x", "real") == "first_try x"
    assert name_tracked("first_try x", "smoke") == name_tracked("smoke first_try x", "smoke") == "smoke first_try x"


@pytest.mark.parametrize("is_old", [True, False])
def test_a_kernels_smoke_run_keeps_its_mode(workspace, tmp_path, is_old):
    """An older kernel's output names and tags nothing: run.json alone tells the mode."""
    output = Workspace(tmp_path / "output")
    run_dir = make_run(output, RUN, mode="smoke", commit=None, dirty=False, source_sha256="5" * 64)
    if is_old:
        tracker = open_jsonl_tracker(run_dir, competition="tiny-task", run_name=f"first_try {RUN}")
        assert type(tracker) is JsonlTracker
        tracker.log_metrics(SCORES)
        tracker.child("fold0").log_metrics({"auc": 0.9})
        tracker.finish("FINISHED")
    else:
        tracker = train(output, "jsonl", "smoke")
    record = json.loads((run_dir / "run.json").read_text()) | {"tracking": tracking_record(tracker).entries()}
    write_lines(run_dir / "run.json", json.dumps(record))
    (taken,) = take_in(workspace, output.root)
    record = taken.run.read_record()
    assert record.mode == "smoke"
    client = MlflowClient(record.tracking.uri)
    run = client.get_run(record.tracking.run_id)
    assert (run.info.run_name, run.data.tags["mode"]) == (f"smoke first_try {RUN}", "smoke")
    scores = {key: value for key, value in run.data.metrics.items() if "cv/" in key or "oof/" in key}
    assert scores == {"smoke/cv/auc": 0.9, "smoke/cv/auc_std": 0.1, "smoke/oof/auc": 0.8}
    (fold,) = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert (fold.info.run_name, fold.data.tags["mode"]) == ("smoke fold0", "smoke")
    assert fold.data.metrics["smoke/auc"] == 0.9


def test_a_run_of_no_known_mode_is_not_taken_in(workspace, tmp_path):
    run_dir = make_run(Workspace(tmp_path / "output"), RUN, mode="smokey")
    open_jsonl_tracker(run_dir, competition="tiny-task").finish("FINISHED")
    with pytest.raises(PodiumError) as error:
        take_in(workspace, run_dir)
    assert str(error.value) == f"{run_dir / 'run.json'}: mode: 'smokey': no such mode; it is null, smoke or overfit"
    assert not workspace.runs.exists()
