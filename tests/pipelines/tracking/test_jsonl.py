"""JSON lines: what is logged is read back, survives a kill, resumes without repeating itself, and can be imported."""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from reopened import reopen

from pipelines.errors import PodiumError
from pipelines.tracking.jsonl import import_jsonl_run, open_jsonl_tracker, read_run
from pipelines.tracking.opening import open_tracker
from pipelines.tracking.tracker import NullTracker, tracking_record
from pipelines.workspace import Workspace


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "mt5_adafactor" / "r1"
    folder.mkdir(parents=True)
    return folder


def record_training(run_dir):
    tracker = open_jsonl_tracker(run_dir, competition="place-names", run_name="r1")
    tracker.log_params({"optimizer.lr": 5e-4, "training.ema": None, "data.columns": ["en", "lang"]})
    tracker.log_tags({"commit": "abc", "stage": "train"})
    tracker.log_data("train", "d1" * 32, Path("data/place-names/train.csv"))
    tracker.log_text("name: mt5_adafactor\n", "config.yaml")
    (run_dir / "oof.parquet").write_bytes(b"oof")
    tracker.log_artifact(run_dir / "oof.parquet", "predictions")
    fold = tracker.child("fold0")
    for step in (50, 100):
        fold.log_metrics({"train/loss": 100 / step, "train/lr": 5e-4}, step=step)
    fold.finish("FINISHED")
    tracker.log_metrics({"cv/exact_match": 0.375})
    return tracker


def test_what_was_logged_is_read_back(run_dir):
    record_training(run_dir).finish("FINISHED")
    run = read_run(run_dir / "tracking")
    assert (run.name, run.competition, run.status) == ("r1", "place-names", "FINISHED")
    assert run.params == {"optimizer.lr": 5e-4, "training.ema": None, "data.columns": ["en", "lang"]}
    assert run.tags == {"commit": "abc", "stage": "train"}
    assert run.data == [("train", "d1" * 32, Path("data/place-names/train.csv"))]
    assert [(row.step, row.values) for row in run.metrics] == [(None, {"cv/exact_match": 0.375})]
    assert [(path.read_bytes(), folder) for path, folder in run.artifacts] == [
        (b"name: mt5_adafactor\n", ""),
        (b"oof", "predictions"),
    ]
    assert list(run.children) == ["fold0"]
    rows = run.children["fold0"].metrics
    assert [(row.step, row.values["train/loss"]) for row in rows] == [(50, 2.0), (100, 1.0)]
    assert rows[0].time_ms <= rows[1].time_ms
    assert run.children["fold0"].status == "FINISHED"


def test_a_file_of_the_run_directory_is_not_copied_and_others_are(run_dir, tmp_path):
    outside = tmp_path / "elsewhere.txt"
    outside.write_text("kept")
    tracker = record_training(run_dir)
    tracker.log_artifact(outside)
    outside.unlink()
    artifacts = run_dir / "tracking" / "artifacts"
    assert sorted(path.name for path in artifacts.iterdir()) == ["config.yaml", "elsewhere.txt"]
    assert (artifacts / "elsewhere.txt").read_text() == "kept"


def test_what_a_kill_of_the_version_before_left_is_removed(run_dir):
    record_training(run_dir)
    (run_dir / "tracking" / "params.unfinished").write_text("{")
    tracker = open_jsonl_tracker(run_dir)
    tracker.log_params({"seed": 1})
    names = sorted(path.name for path in (run_dir / "tracking").iterdir())
    assert names == ["artifacts", "events.jsonl", "fold0", "metrics.jsonl", "params.json", "tags.json"]


def test_of_a_run_that_was_deleted_no_stump_comes_back(run_dir):
    tracker = open_jsonl_tracker(run_dir)
    shutil.rmtree(run_dir)
    tracker.log_params({"seed": 1})
    tracker.log_tags({"stage": "train"})
    assert not run_dir.exists()


def test_nan_and_infinity_are_valid_json_and_come_back(run_dir):
    tracker = open_jsonl_tracker(run_dir)
    tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, step=1)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    json.loads((run_dir / "tracking" / "metrics.jsonl").read_text(), parse_constant=refuse)
    values = read_run(run_dir / "tracking").metrics[0].values
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


KILLED_TRAINING = """
import os, signal, sys
from pathlib import Path
from pipelines.tracking.jsonl import open_jsonl_tracker
fold = open_jsonl_tracker(Path(sys.argv[1])).child("fold0")
for step in range(1, 301):
    fold.log_metrics({"train/loss": 1 / step}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_logged(run_dir):
    killed = subprocess.run([sys.executable, "-c", KILLED_TRAINING, str(run_dir)], check=False)
    assert killed.returncode == -signal.SIGKILL
    run = read_run(run_dir / "tracking")
    assert [row.step for row in run.children["fold0"].metrics] == list(range(1, 301))
    assert run.status is None


def test_a_torn_last_line_is_passed_over_and_overwritten(run_dir):
    tracker = open_jsonl_tracker(run_dir)
    for step in (1, 2):
        tracker.log_metrics({"train/loss": 1.0}, step=step)
    file = run_dir / "tracking" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert [row.step for row in read_run(run_dir / "tracking").metrics] == [1]
    open_jsonl_tracker(run_dir).log_metrics({"train/loss": 0.5}, step=2)
    assert [(row.step, row.values["train/loss"]) for row in read_run(run_dir / "tracking").metrics] == [
        (1, 1),
        (2, 0.5),
    ]


def test_a_broken_line_inside_is_named(run_dir):
    tracker = open_jsonl_tracker(run_dir)
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    file = run_dir / "tracking" / "metrics.jsonl"
    file.write_bytes(b'{"time": 1, "st\n' + file.read_bytes())
    with pytest.raises(PodiumError, match=r"metrics\.jsonl, line 1: not JSON"):
        read_run(run_dir / "tracking")


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(PodiumError, match="no recorded run"):
        read_run(tmp_path)


def test_a_resumed_run_goes_on_where_it_stopped(run_dir):
    first = record_training(run_dir)
    first.finish("KILLED")
    tracker = open_jsonl_tracker(run_dir, competition="place-names", run_name="r1")
    assert tracker.run_id == first.run_id
    tracker.log_params({"optimizer.lr": 5e-4, "training.num_steps": 200, "training.ema": 0.99})
    fold = tracker.child("fold0")
    for step in (100, 150):  # the checkpoint was older than the last value logged
        fold.log_metrics({"train/loss": 100 / step, "train/lr": 5e-4}, step=step)
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.log_metrics({"cv/exact_match": 0.4})
    run = read_run(run_dir / "tracking")
    assert run.status is None
    assert [row.step for row in run.children["fold0"].metrics] == [50, 100, 150]
    assert [row.values for row in run.metrics] == [{"cv/exact_match": 0.375}, {"cv/exact_match": 0.4}]
    assert run.params["training.ema"] is None
    assert run.params["training.num_steps"] == 200
    assert run.tags["param_changed/training.ema"] == "0.99"


def test_a_store_that_fails_is_reported_once_and_never_raises(run_dir, caplog):
    tracker = open_jsonl_tracker(run_dir)
    shutil.rmtree(run_dir / "tracking")
    (run_dir / "tracking").write_text("in the way")
    for number in range(3):
        tracker.log_params({f"p{number}": 1})
        tracker.log_text("text", "config.yaml")
        tracker.log_metrics({"train/loss": 1.0}, step=number)
    tracker.finish("FAILED")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the training goes on" in caplog.text


def test_an_import_repeats_the_run_with_its_times(run_dir, tmp_path):
    record_training(run_dir).finish("FINISHED")
    recorded = read_run(run_dir / "tracking")
    target = open_jsonl_tracker(tmp_path / "other", competition="place-names", run_name="r1")
    returned = import_jsonl_run(run_dir / "tracking", target)
    target.finish(str(returned.status))
    copy = read_run(tmp_path / "other" / "tracking")
    assert copy.metrics == recorded.metrics
    assert copy.children["fold0"].metrics == recorded.children["fold0"].metrics
    assert (copy.params, copy.data, copy.status) == (recorded.params, recorded.data, "FINISHED")
    assert copy.tags == recorded.tags | {"import.run_id": recorded.run_id}
    assert [path.read_bytes() for path, _ in copy.artifacts] == [path.read_bytes() for path, _ in recorded.artifacts]


def test_an_import_names_the_files_that_were_left_behind(run_dir, tmp_path):
    record_training(run_dir).finish("FINISHED")
    (run_dir / "oof.parquet").unlink()
    target = open_jsonl_tracker(tmp_path / "other")
    import_jsonl_run(run_dir / "tracking", target)
    assert read_run(tmp_path / "other" / "tracking").tags["import.missing"] == "oof.parquet"


def test_reopening_adds_a_score_and_keeps_the_end(run_dir, tmp_path):
    tracker = record_training(run_dir)
    tracker.finish("FINISHED")
    run_json = {"experiment": "mt5_adafactor", "run": "r1", "tracking": tracking_record(tracker).entries()}
    reopened = reopen(Workspace(tmp_path), run_json)
    assert reopened.run_id == tracker.run_id
    reopened.log_metrics({"lb/public": 0.41})
    reopened.log_text("submitted\n", "submission.txt")
    reopened.finish("FINISHED")
    run = read_run(run_dir / "tracking")
    assert run.metrics[-1].values == {"lb/public": 0.41}
    assert run.status == "FINISHED"
    events = [json.loads(line)["event"] for line in (run_dir / "tracking" / "events.jsonl").open()]
    assert events == ["started", "data", "artifact", "artifact", "finished", "artifact"]


def test_system_metrics_are_read_while_a_child_logs(run_dir):
    tracker = open_jsonl_tracker(run_dir)
    tracker.log_with_system_metrics(seconds=0.0)
    tracker.child("fold0").log_metrics({"train/loss": 1.0}, step=1)
    values = read_run(run_dir / "tracking").metrics[0].values
    assert values["system/process_memory_usage_megabytes"] > 1
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100


def test_a_child_may_not_be_called_like_the_artifacts(run_dir):
    with pytest.raises(ValueError, match="artifacts"):
        open_jsonl_tracker(run_dir).child("artifacts")


def test_choosing_a_backend_by_name(run_dir, tmp_path):
    def choose(backend):
        return open_tracker(
            backend,
            Workspace(tmp_path),
            competition="place-names",
            run_name="r1",
            run_dir=run_dir,
            resume_run_id=None,
            system_metrics=True,
        )

    assert choose("jsonl").uri == str(run_dir / "tracking")
    none = choose("none")
    assert isinstance(none, NullTracker)
    assert tracking_record(none.child("fold0")).entries() == {"backend": "none"}
    assert isinstance(reopen(Workspace(tmp_path), {"run": "r1"}), NullTracker)
    with pytest.raises(PodiumError, match="'wandb': no such backend; choose one of mlflow, jsonl, none"):
        choose("wandb")
