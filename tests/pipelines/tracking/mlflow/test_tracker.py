"""MLflow on a real sqlite database: what is stored, what a resume leaves alone, and what happens when it cannot be."""

import json
import math
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from reopened import reopen

from pipelines.errors import PodiumError
from pipelines.tracking.jsonl import import_jsonl_run, open_jsonl_tracker
from pipelines.tracking.mlflow import sending
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker, prepare_database
from pipelines.tracking.mlflow.words import to_mlflow_key
from pipelines.tracking.opening import open_tracker
from pipelines.tracking.tracker import tracking_record
from pipelines.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, database_template, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path)
    shutil.copy(database_template, workspace.mlflow_db)
    return workspace


@pytest.fixture
def run_dir(workspace):
    folder = workspace.runs / "mt5_adafactor" / "r1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def open_run(workspace, run_dir):
    def open_run(**options):
        # A minute between flushes: nothing is sent but by flush and finish, so that tests know when.
        arguments = {"competition": "place-names", "run_name": "r1", "run_dir": run_dir, "flush_seconds": 60.0}
        return open_mlflow_tracker(workspace, **(arguments | options))

    return open_run


def get_client(tracker):
    return MlflowClient(tracker.uri)


def get_curve(tracker, key, run_id=None):
    history = get_client(tracker).get_metric_history(run_id or tracker.run_id, key)
    return [(metric.step, metric.value) for metric in history]


def read_unsent(run_dir):
    return [json.loads(line) for line in (run_dir / "tracking" / "unsent.jsonl").open()]


def test_a_run_with_a_fold_is_stored_whole(open_run, workspace, run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = open_run()
    tracker.log_params({"optimizer.lr": 5e-4, "training.ema": None})
    tracker.log_tags({"commit": "abc", "note": "what it tries", "stage": "train"})
    tracker.log_text("diff --git\n", "git.diff")
    (tmp_path / "oof.parquet").write_bytes(b"oof")
    tracker.log_artifact(tmp_path / "oof.parquet", "predictions")
    tracker.log_data("train", "d1" * 32, tmp_path / "train.csv")
    fold = tracker.child("fold0")
    for step in (50, 100):
        fold.log_metrics({"train/loss": 100 / step, "train/lr": 5e-4}, step=step)
    fold.finish("FINISHED")
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.finish("FINISHED")

    client = get_client(tracker)
    run = client.get_run(tracker.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "place-names"
    assert (run.info.run_name, run.info.status) == ("r1", "FINISHED")
    assert run.data.params == {"optimizer.lr": "0.0005", "training.ema": "None"}
    assert run.data.metrics == {"cv/exact_match": 0.375, "train/loss/fold0": 1.0, "train/lr/fold0": 5e-4}
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    assert run.data.tags["mlflow.note.content"] == "what it tries"
    assert (run.data.tags["stage"], run.data.tags["data.train"]) == ("train", "d1" * 32)
    assert [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs] == [("train", "d1" * 6)]
    artifacts = workspace.root / "mlartifacts" / "place-names" / tracker.run_id / "artifacts"
    assert (artifacts / "git.diff").read_text() == "diff --git\n"
    assert (artifacts / "predictions" / "oof.parquet").read_bytes() == b"oof"
    child = client.get_run(fold.run_id)
    assert (child.info.run_name, child.info.status) == ("fold0", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert get_curve(tracker, "train/loss", fold.run_id) == [(50, 2.0), (100, 1.0)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db", "oof.parquet", "runs"]
    assert list(run_dir.iterdir()) == []


def test_a_run_shows_the_curves_of_its_folds_and_its_scores_as_columns(open_run):
    tracker = open_run()
    for name in ("fold0", "fold1"):
        tracker.child(name).log_metrics({"train/loss": 0.5}, step=7)
        tracker.child(name).log_metrics({"valid/exact_match": 0.25})
    tracker.log_metrics({"cv/exact_match": 0.375, "time/wall_seconds": 9.0})
    tracker.finish("FINISHED")
    metrics = get_client(tracker).get_run(tracker.run_id).data.metrics
    assert sorted(metrics) == ["cv/exact_match", "time/wall_seconds", "train/loss/fold0", "train/loss/fold1"]
    assert get_curve(tracker, "train/loss/fold1") == [(7, 0.5)]
    later = open_run()
    later.log_metrics({"lb/public": 0.4})
    later.finish("FINISHED")
    tags = get_client(tracker).get_experiment("1").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    columns = json.loads(tags["mlflow.sharedViewState.scores"])["selectedColumns"]
    assert columns[:3] == ["metrics.`cv/exact_match`", "metrics.`lb/public`", "params.`model.name`"]


def test_nothing_is_sent_by_the_calls_themselves(open_run):
    tracker = open_run()
    fold = tracker.child("fold0")
    fold.log_metrics({"train/loss": 1.0}, step=1)
    assert fold.run_id is None
    tracker.flush()
    assert get_curve(tracker, "train/loss", fold.run_id) == [(1, 1.0)]
    tracker.finish("KILLED")
    assert {run.info.status for run in get_client(tracker).search_runs(["1"])} == {"KILLED"}


def test_the_thread_sends_by_itself(open_run):
    tracker = open_run(flush_seconds=0.02)
    tracker.log_with_system_metrics(seconds=0.02)
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    deadline = time.monotonic() + 20
    stored = {}
    while len(stored) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        metrics = get_client(tracker).get_run(tracker.run_id).data.metrics
        stored = {key: metrics[key] for key in ("train/loss", "system/cpu_utilization_percentage") if key in metrics}
    tracker.finish("FINISHED")
    assert stored["train/loss"] == 1.0
    assert 0 <= stored["system/cpu_utilization_percentage"] <= 100


def test_a_resumed_run_goes_on_where_it_stopped(open_run):
    first = open_run()
    first.log_params({"optimizer.lr": 5e-4, "training.ema": None})
    first.log_metrics({"cv/exact_match": 0.375})
    fold = first.child("fold0")
    for step in (50, 100):
        fold.log_metrics({"train/loss": 100 / step}, step=step)
    first.finish("KILLED")

    tracker = open_run(resume_run_id=first.run_id)
    assert tracker.run_id == first.run_id
    assert get_client(tracker).get_run(tracker.run_id).info.status == "RUNNING"
    tracker.log_params({"optimizer.lr": 5e-4, "training.ema": 0.99, "training.num_steps": 150})
    again = tracker.child("fold0")
    for step in (100, 150):  # the checkpoint was older than the last value logged
        again.log_metrics({"train/loss": 150 / step}, step=step)
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.finish("FINISHED")

    assert again.run_id == fold.run_id
    assert get_curve(tracker, "train/loss", fold.run_id) == [(50, 2.0), (100, 1.0), (150, 1.0)]
    assert get_curve(tracker, "cv/exact_match") == [(0, 0.375)]
    run = get_client(tracker).get_run(tracker.run_id)
    assert run.data.params == {"optimizer.lr": "0.0005", "training.ema": "None", "training.num_steps": "150"}
    assert run.data.tags["param_changed/training.ema"] == "0.99"
    assert "param_changed/optimizer.lr" not in run.data.tags
    assert run.info.status == "FINISHED"


def test_resuming_a_run_that_is_gone_starts_a_new_one(open_run):
    first = open_run()
    first.finish("KILLED")
    get_client(first).delete_run(first.run_id)
    tracker = open_run(resume_run_id=first.run_id)
    tracker.finish("FINISHED")
    assert tracker.run_id != first.run_id


def test_more_than_a_batch_of_everything(open_run, workspace):
    tracker = open_run()
    tracker.log_params({f"p{number}": number for number in range(250)})
    tracker.log_tags({f"t{number}": str(number) for number in range(250)})
    for step in range(1300):
        tracker.log_metrics({"a": 1.0, "b": 2.0}, step=step)
    long_text = "x" * 6001
    tracker.log_params({"prompt": long_text, "lr@start": 1})
    tracker.log_metrics({"valid/map@5": 0.5})
    tracker.finish("FINISHED")
    run = get_client(tracker).get_run(tracker.run_id)
    assert len(run.data.params) == 252
    assert run.data.params["lr_start"] == "1"
    assert run.data.params["prompt"].endswith("x... [6001 characters, whole in params/prompt.txt]")
    assert len(run.data.params["prompt"]) == 6000
    assert len([key for key in run.data.tags if key.startswith("t") and key[1:].isdigit()]) == 250
    assert run.data.metrics["valid/map_5"] == 0.5
    artifacts = workspace.root / "mlartifacts" / "place-names" / tracker.run_id / "artifacts"
    assert (artifacts / "params" / "prompt.txt").read_text() == long_text
    assert get_curve(tracker, "b") == [(step, 2.0) for step in range(1300)]


def test_infinity_does_not_flatten_the_chart(open_run):
    tracker = open_run()
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf]):
        tracker.log_metrics({"train/loss": value}, step=step)
    tracker.finish("FAILED")
    curve = get_curve(tracker, "train/loss")
    assert curve[0] == (0, 1.0)
    assert [step for step, value in curve if math.isnan(value)] == [1, 2, 3]
    assert get_client(tracker).get_run(tracker.run_id).data.tags["nonfinite/train/loss"] == "inf at step 2"


def test_a_store_that_recovers_has_lost_nothing(open_run, workspace, caplog):
    tracker = open_run()
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    tracker.flush()
    with closing(sqlite3.connect(workspace.mlflow_db)) as database:
        database.execute("ALTER TABLE metrics RENAME TO metrics_away")
        for step in (2, 3):
            tracker.log_metrics({"train/loss": 1 / step}, step=step)
            tracker.flush()
        tracker.log_tags({"stage": "train"})
        database.execute("ALTER TABLE metrics_away RENAME TO metrics")
    tracker.finish("FINISHED")
    assert get_curve(tracker, "train/loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert get_client(tracker).get_run(tracker.run_id).data.tags["stage"] == "train"
    warnings = [record for record in caplog.records if record.name.startswith("pipelines")]
    assert len(warnings) == 1
    assert "no such table" in warnings[0].message


def test_what_could_not_be_sent_is_kept_to_be_sent(open_run, workspace, run_dir, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sending, "PATIENCE", sending.Patience(2.0, 1.0))
    tracker = open_run()
    tracker.log_artifact(tmp_path / "never_written.png")
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.flush()
    (refused,) = [json.loads(line) for line in (run_dir / "tracking" / "refused.jsonl").open()]
    assert (refused["run"], refused["artifact"]) == ("r1", str(tmp_path / "never_written.png"))
    workspace.mlflow_db.write_bytes(b"not a database any more" * 100)
    tracker.log_metrics({"lb/public": 0.5})
    tracker.log_params({"seed": 1})
    tracker.log_text("name: x\n", "config.yaml")
    tracker.log_artifact(run_dir / "oof.parquet", "predictions")
    tracker.log_data("train", "d1" * 32, tmp_path / "train.csv")
    tracker.child("fold0").log_metrics({"train/loss": math.inf}, step=7)
    tracker.finish("FINISHED")
    opened, *lines = read_unsent(run_dir)
    assert opened["opened"]["place"] == tracking_record(tracker).entries()
    assert all(line.pop("time") > 0 for line in lines)
    assert lines == [
        {"values": {"lb/public": 0.5}},
        {"params": {"seed": "1"}},
        {"text": "config.yaml", "content": "name: x\n"},
        {"artifact": "oof.parquet", "folder": "predictions"},
        {"data": "train", "digest": "d1" * 32, "path": str(tmp_path / "train.csv")},
        {"tags": {"data.train": "d1" * 32}},
        {"run": "fold0", "step": 7, "values": {"train/loss": "inf"}},
        {"run": "fold0", "end": "FINISHED"},
        {"end": "FINISHED"},
    ]
    assert tracker.num_unsent == 9
    last = caplog.records[-1].getMessage()
    assert last.startswith(f"9 entries could not be sent to {tracker.uri} (")
    assert last.endswith(
        f"; they lie in {run_dir}/tracking/unsent.jsonl, and the next `podium train`, `resume`, `submit` or "
        "`tracking send` sends them"
    )


def test_two_trainings_and_a_busy_database(open_run, workspace):
    parent = open_run()
    stop = threading.Event()

    def keep_locking():
        with closing(sqlite3.connect(workspace.mlflow_db, timeout=20, isolation_level=None)) as database:
            while not stop.is_set():
                database.execute("BEGIN IMMEDIATE")
                time.sleep(0.005)
                database.execute("COMMIT")
                time.sleep(0.002)

    def train(name):
        (workspace.runs / name).mkdir()
        tracker = open_run(resume_run_id=parent.run_id, flush_seconds=0.01, run_dir=workspace.runs / name)
        for step in range(1, 101):
            tracker.child(name).log_metrics({"train/loss": 1 / step}, step=step)
            time.sleep(0.002)
        tracker.flush()
        tracker.child(name).finish("FINISHED")
        tracker.flush()

    threads = [
        threading.Thread(target=keep_locking),
        *(threading.Thread(target=train, args=(n,)) for n in ("f0", "f1")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    parent.finish("FINISHED")
    children = get_client(parent).search_runs(["1"], f"tags.mlflow.parentRunId = '{parent.run_id}'")
    assert sorted(run.info.run_name for run in children) == ["f0", "f1"]
    for run in children:
        assert get_curve(parent, "train/loss", run.info.run_id) == [(step, 1 / step) for step in range(1, 101)]
        assert run.info.status == "FINISHED"


def test_reopening_adds_a_score_and_keeps_the_end(open_run, workspace):
    tracker = open_run()
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.finish("FAILED")
    ended = get_client(tracker).get_run(tracker.run_id).info.end_time
    time.sleep(0.002)
    run_json = {"experiment": "mt5_adafactor", "run": "r1", "tracking": tracking_record(tracker).entries()}
    reopened = reopen(workspace, run_json)
    for score in (0.41, 0.43):
        reopened.log_metrics({"lb/public": score})
    reopened.log_tags({"kernel_version": "3"})
    reopened.finish("FINISHED")
    run = get_client(tracker).get_run(tracker.run_id)
    assert run.data.metrics == {"cv/exact_match": 0.375, "lb/public": 0.43}
    assert run.data.tags["kernel_version"] == "3"
    assert (run.info.status, run.info.end_time) == ("FAILED", ended)


def test_a_checkout_that_moved_finds_its_runs(open_run, workspace):
    tracker = open_run()
    tracker.finish("FINISHED")
    record = tracking_record(tracker).entries() | {"uri": "sqlite:////nowhere/mlflow.db"}
    reopened = reopen(workspace, {"experiment": "e", "run": "r1", "tracking": record})
    reopened.finish("FINISHED")
    assert (reopened.run_id, reopened.uri) == (tracker.run_id, tracker.uri)
    with pytest.raises(PodiumError, match="MLflow run 0123 is not in sqlite"):
        reopen(workspace, {"tracking": record | {"run_id": "0123"}})


def test_a_kernel_is_imported_with_its_times(open_run, tmp_path):
    kernel = open_jsonl_tracker(tmp_path / "output", competition="place-names", run_name="r1")
    kernel.log_params({"seed": 7})
    kernel.log_text("name: x\n", "config.yaml")
    kernel.child("fold0").log_metrics_at({"train/loss": 0.5}, 50, 1_700_000_000_123)
    kernel.log_metrics({"cv/exact_match": math.nan})
    kernel.finish("FINISHED")
    tracker = open_run()
    recorded = import_jsonl_run(tmp_path / "output" / "tracking", tracker)
    tracker.finish(str(recorded.status))
    client = get_client(tracker)
    run = client.get_run(tracker.run_id)
    assert run.data.params == {"seed": "7"}
    assert run.data.tags["import.run_id"] == kernel.run_id
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["config.yaml"]
    (point,) = client.get_metric_history(str(tracker.child("fold0").run_id), "train/loss")
    assert (point.timestamp, point.step, point.value) == (1_700_000_000_123, 50, 0.5)


def test_a_server_that_does_not_answer_is_a_clear_error(workspace, run_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PodiumError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used: ") as error:
        open_tracker(
            "mlflow",
            workspace,
            competition="place-names",
            run_name="r1",
            run_dir=run_dir,
            resume_run_id=None,
            system_metrics=False,
        )
    assert "secret" not in str(error.value)
    assert str(error.value).endswith("check MLFLOW_TRACKING_URI, or track into files with tracking.name=jsonl")


def test_a_deleted_experiment_names_the_cure(open_run):
    tracker = open_run()
    tracker.finish("FINISHED")
    get_client(tracker).delete_experiment("1")
    with pytest.raises(PodiumError, match=r"'place-names' was deleted: .*`mlflow experiments restore -x 1`"):
        open_run()


def test_an_existing_database_is_left_alone(workspace):
    before = workspace.mlflow_db.stat().st_mtime_ns
    assert prepare_database(workspace) == workspace.mlflow_db
    assert workspace.mlflow_db.stat().st_mtime_ns == before
    assert [path.name for path in Path(workspace.root).iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("valid/map@5", "valid/map_5"),
        ("optimizer.lr", "optimizer.lr"),
        ("a//b/../c", "a/c"),
        ("/etc", "etc"),
        ("größe [mm]", "größe _mm_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_keys_in_the_characters_mlflow_takes(key, expected):
    assert to_mlflow_key(key) == expected
