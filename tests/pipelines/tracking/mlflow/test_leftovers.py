"""What one command could not tell MLflow the next one tells: nothing is lost, and nothing is stored twice."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from mlflow.tracking import MlflowClient
from reopened import reopen

from pipelines.cli import main
from pipelines.errors import PodiumError
from pipelines.tracking.mlflow import sending
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.tracking.opening import kept_elsewhere, open_tracker, send_left
from pipelines.tracking.tracker import tracking_record
from pipelines.workspace import Workspace

STEPS = [(step, 1 / step) for step in range(1, 31)]


@pytest.fixture
def workspace(tmp_path, database_template, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sending, "PATIENCE", sending.Patience(2.0, 1.0))
    return make_checkout(tmp_path / "checkout", database_template)


def make_checkout(root, database_template):
    root.mkdir()
    workspace = Workspace(root)
    shutil.copy(database_template, workspace.mlflow_db)
    return workspace


def make_run(workspace, name="r1", **record):
    folder = workspace.runs / "first" / name
    folder.mkdir(parents=True)
    write_record(folder, status="running", **record)
    return folder


def write_record(folder, **changes):
    path = folder / "run.json"
    former = json.loads(path.read_text()) if path.exists() else {"run": folder.name, "experiment": "first"}
    path.write_text(json.dumps(former | changes))


def open_run(workspace, folder, **options):
    tracker = open_mlflow_tracker(
        workspace, competition="place-names", run_name=folder.name, run_dir=folder, flush_seconds=60.0, **options
    )
    write_record(folder, tracking=tracking_record(tracker).entries())
    return tracker


@contextmanager
def store_away(workspace):
    """Within the block the database is none: sqlite answers each request with an error."""
    kept = workspace.mlflow_db.read_bytes()
    workspace.mlflow_db.write_bytes(b"no database any more" * 500)
    yield
    workspace.mlflow_db.write_bytes(kept)


def left(folder):
    return sorted(path.name for path in (folder / "tracking").glob("unsent*"))


def stored(workspace, run_id):
    """Status, values in their order, tags, and the nested runs with theirs, as a fresh client reads them."""
    client = MlflowClient(f"sqlite:///{workspace.mlflow_db}")
    run = client.get_run(run_id)
    curves = {
        key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)] for key in run.data.metrics
    }
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return run, curves, {child.info.run_name: stored(workspace, child.info.run_id) for child in nested}


TRAINING = """
import os, signal, sys
from pathlib import Path
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace

workspace, folder = Workspace(Path(sys.argv[1])), Path(sys.argv[2])
tracker = open_mlflow_tracker(
    workspace, competition="place-names", run_name=folder.name, run_dir=folder, flush_seconds=60.0
)
print(tracker.run_id, flush=True)
tracker.log_params({"optimizer.lr": 5e-4})
fold = tracker.child("fold0")
for step in range(1, 31):
    fold.log_metrics({"train/loss": 1 / step}, step=step)
    if step == 11:
        tracker.flush()
tracker.log_text("a diff", "git.diff")
tracker.log_artifact(folder / "oof.txt", "predictions")
tracker.log_data("train", "d1" * 32, folder / "train.csv")
tracker.log_metrics({"cv/exact_match": 0.375})
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_training(workspace, folder):
    """A training killed with most of its values in the buffer; its MLflow run."""
    (folder / "oof.txt").write_text("oof")
    command = [sys.executable, "-c", TRAINING, str(workspace.root), str(folder)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return killed.stdout.strip()


def check_whole(workspace, run_id, status):
    run, curves, nested = stored(workspace, run_id)
    assert run.info.status == status
    assert run.data.params == {"optimizer.lr": "0.0005"}
    assert curves["train/loss/fold0"] == STEPS
    assert curves["cv/exact_match"] == [(0, 0.375)]
    assert run.data.tags["data.train"] == "d1" * 32
    client = MlflowClient(f"sqlite:///{workspace.mlflow_db}")
    assert [file.path for file in client.list_artifacts(run_id)] == ["git.diff", "predictions"]
    assert list(nested) == ["fold0"]
    fold, fold_curves, _ = nested["fold0"]
    assert fold.info.status == status
    assert fold_curves == {"train/loss": STEPS}


def test_a_killed_training_loses_nothing_and_is_not_running_for_ever(workspace, capsys):
    folder = make_run(workspace)
    run_id = killed_training(workspace, folder)
    assert stored(workspace, run_id)[0].info.status == "RUNNING"
    assert left(folder) == ["unsent.jsonl"]
    main(["--root", str(workspace.root), "tracking", "send"])
    assert capsys.readouterr().out == (
        f"{folder}: 24 entries that were left unsent are in MLflow now; its MLflow run, whose process is gone, is "
        "KILLED now\n"
    )
    check_whole(workspace, run_id, "KILLED")
    assert not (folder / "tracking").exists()
    main(["--root", str(workspace.root), "tracking", "send"])
    assert capsys.readouterr().out == "nothing is left to send\n"


def test_a_training_killed_after_its_run_had_finished_is_finished_with_its_scores(workspace):
    folder = make_run(workspace)
    run_id = killed_training(workspace, folder)
    write_record(folder, status="finished", finished="2026-11-28T20:57:53+00:00")
    (folder / "metrics.json").write_text(json.dumps({"cv/exact_match": 0.375, "oof/exact_match": 0.5, "fold0/x": 1}))
    assert send_left(workspace, print) == []
    check_whole(workspace, run_id, "FINISHED")
    run, curves, _ = stored(workspace, run_id)
    assert run.info.end_time == 1_795_899_473_000
    assert curves["oof/exact_match"] == [(0, 0.5)]
    assert "fold0/x" not in curves


def test_the_next_training_sends_what_an_earlier_one_left(workspace):
    folder, next_folder = make_run(workspace), make_run(workspace, "r2")
    run_id = killed_training(workspace, folder)
    said = []
    tracker = open_tracker(
        "mlflow",
        workspace,
        competition="place-names",
        run_name="r2",
        run_dir=next_folder,
        resume_run_id=None,
        say=said.append,
    )
    check_whole(workspace, run_id, "KILLED")
    assert [line.partition(":")[0] for line in said] == [str(folder)]
    # Its own journal is in use, and left alone.
    assert left(next_folder) == ["unsent.jsonl"]
    assert send_left(workspace, said.append) == []
    assert stored(workspace, tracker.run_id)[0].info.status == "RUNNING"
    tracker.finish("FINISHED")
    assert left(next_folder) == []


def test_a_resumed_training_sends_its_own_first_and_repeats_no_step(workspace):
    folder = make_run(workspace)
    run_id = killed_training(workspace, folder)
    tracker = open_run(workspace, folder, resume_run_id=run_id)
    fold = tracker.child("fold0")
    for step in range(21, 41):
        fold.log_metrics({"train/loss": 1 / step}, step=step)
    tracker.log_metrics({"cv/exact_match": 0.375})
    tracker.finish("FINISHED")
    run, curves, nested = stored(workspace, run_id)
    longer = [(step, 1 / step) for step in range(1, 41)]
    assert (run.info.status, nested["fold0"][0].info.status) == ("FINISHED", "FINISHED")
    assert curves["train/loss/fold0"] == longer
    assert curves["cv/exact_match"] == [(0, 0.375)]
    assert nested["fold0"][1]["train/loss"] == longer
    assert left(folder) == []


@pytest.mark.parametrize("kill_at", [1, 2, 3, 5, 8])
def test_a_sending_that_is_killed_is_gone_on_with_and_nothing_is_there_twice(workspace, kill_at):
    folder = make_run(workspace)
    run_id = killed_training(workspace, folder)
    program = f"""
import os, signal, sys
from pathlib import Path
from mlflow.tracking import MlflowClient
from pipelines.tracking.opening import send_left
from pipelines.workspace import Workspace

count = 0
def counted(name):
    function = getattr(MlflowClient, name)
    def call(*arguments, **options):
        global count
        answer = function(*arguments, **options)
        count += 1
        if count == {kill_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    setattr(MlflowClient, name, call)
for name in ("log_batch", "log_text", "log_artifact", "log_inputs", "set_terminated"):
    counted(name)
send_left(Workspace(Path(sys.argv[1])), print)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(workspace.root)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert left(folder) == ["unsent.jsonl"]
    assert send_left(workspace, print) == []
    check_whole(workspace, run_id, "KILLED")


def test_what_a_store_did_not_take_at_the_end_is_sent_by_the_next_command(workspace, caplog):
    folder = make_run(workspace)
    tracker = open_run(workspace, folder)
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    tracker.flush()
    with store_away(workspace):
        tracker.log_metrics({"train/loss": 0.5}, step=2)
        tracker.finish("FAILED")
        assert tracker.num_unsent == 2
        (waiting,) = send_left(workspace, lambda text: None)
        assert waiting.name == "unsent.jsonl"
        with pytest.raises(SystemExit):
            main(["--root", str(workspace.root), "tracking", "send"])
    ended = [json.loads(line)["time"] for line in (folder / "tracking" / "unsent.jsonl").open() if '"end"' in line]
    assert send_left(workspace, print) == []
    run, curves, _ = stored(workspace, tracker.run_id)
    assert curves == {"train/loss": [(1, 1.0), (2, 0.5)]}
    assert (run.info.status, [run.info.end_time]) == ("FAILED", ended)


def test_a_score_that_was_left_unsent_is_sent_before_the_next_one(workspace):
    folder = make_run(workspace)
    first = open_run(workspace, folder)
    first.finish("FINISHED")
    record = json.loads((folder / "run.json").read_text())
    away = reopen(workspace, record)
    with store_away(workspace):
        away.log_metrics({"lb/public": 0.41})
        away.finish("FINISHED")
    assert len(left(folder)) == 1
    again = reopen(workspace, record)
    again.log_metrics({"lb/public": 0.43})
    again.finish("FINISHED")
    run, curves, _ = stored(workspace, first.run_id)
    assert curves == {"lb/public": [(0, 0.41), (0, 0.43)]}
    assert run.info.status == "FINISHED"
    assert left(folder) == []


def test_what_the_version_before_only_described_is_sent_as_far_as_it_goes(workspace):
    folder = make_run(workspace)
    tracker = open_run(workspace, folder)
    tracker.log_metrics({"cv/exact_match": 0.25})
    tracker.flush()
    tracker._sender.journal.close(is_all_sent=True)
    lines = [
        {"run": "first r1", "metrics": [[1_700_000_000_000, 0, "lb/public", "0.5"]]},
        {"run": "first r1", "params": {"seed": "1"}},
        {"run": "first r1", "text": "config.yaml"},
        {"run": "first r1", "status": "FINISHED"},
        {"run": "first r1", "view": "scores"},
        {"run": "fold0", "metrics": [[1_700_000_000_000, 7, "train/loss", "0.25"]]},
        {"run": "fold0", "status": "FINISHED"},
    ]
    (folder / "tracking").mkdir()
    (folder / "tracking" / "unsent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert send_left(workspace, print) == []
    run, curves, nested = stored(workspace, tracker.run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"seed": "1"})
    assert curves == {"cv/exact_match": [(0, 0.25)], "lb/public": [(0, 0.5)], "train/loss/fold0": [(7, 0.25)]}
    assert nested["fold0"][1] == {"train/loss": [(7, 0.25)]}


# -- runs that were copied ---------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path, database_template):
    return make_checkout(tmp_path / "other", database_template)


def test_a_run_copied_with_its_database_reports_to_the_copy(workspace, other):
    folder = make_run(workspace)
    tracker = open_run(workspace, folder)
    tracker.finish("FINISHED")
    shutil.copytree(workspace.runs, other.runs)
    shutil.copy(workspace.mlflow_db, other.mlflow_db)
    reopened = reopen(other, json.loads((folder / "run.json").read_text()))
    reopened.log_metrics({"lb/public": 0.5})
    reopened.finish("FINISHED")
    assert kept_elsewhere(other, reopened) is None
    assert stored(other, tracker.run_id)[1] == {"lb/public": [(0, 0.5)]}
    assert stored(workspace, tracker.run_id)[1] == {}


@pytest.mark.parametrize("has_database", [True, False])
def test_a_run_copied_without_its_database_says_where_it_reports(workspace, other, has_database):
    folder = make_run(workspace)
    tracker = open_run(workspace, folder)
    tracker.finish("FINISHED")
    if not has_database:
        other.mlflow_db.unlink()
    reopened = reopen(other, json.loads((folder / "run.json").read_text()))
    reopened.log_metrics({"lb/public": 0.5})
    reopened.finish("FINISHED")
    assert kept_elsewhere(other, reopened) == f"sqlite:///{workspace.mlflow_db}"
    assert stored(workspace, tracker.run_id)[1] == {"lb/public": [(0, 0.5)]}
    assert other.mlflow_db.exists() == has_database, "no database is made to ask it"
    workspace.mlflow_db.unlink()
    with pytest.raises(PodiumError, match=f"MLflow run {tracker.run_id} is not in sqlite:///{other.mlflow_db}: set"):
        reopen(other, json.loads((folder / "run.json").read_text()))


def test_a_copy_of_a_run_that_is_being_trained_neither_sends_for_it_nor_ends_it(workspace, other):
    folder = make_run(workspace)
    tracker = open_run(workspace, folder)
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    shutil.copytree(workspace.runs, other.runs)
    said = []
    assert send_left(other, said.append, only_here=True) != []
    assert said == [
        f"{other.runs}/first/r1/tracking/unsent.jsonl: could not be sent (its run is in "
        f"sqlite:///{workspace.mlflow_db}, where `podium tracking send` sends it)"
    ]
    assert send_left(other, print) == []
    run, curves, _ = stored(workspace, tracker.run_id)
    assert (run.info.status, curves) == ("RUNNING", {})
    tracker.finish("FINISHED")
    assert stored(workspace, tracker.run_id)[1] == {"train/loss": [(1, 1.0)]}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_torn_and_a_damaged_line_are_passed_over(workspace, caplog):
    folder = make_run(workspace)
    run_id = killed_training(workspace, folder)
    path = folder / "tracking" / "unsent.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"step": ', b'"step": x')
    path.write_bytes(b"".join(lines)[:-9])
    assert send_left(workspace, print) == []
    steps = [step for step, _ in stored(workspace, run_id)[1]["train/loss/fold0"]]
    assert sorted(set(range(1, 31)) - set(steps)) == [14]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [str(path)]


def test_a_journal_that_cannot_be_written_is_named_once_and_the_training_goes_on(workspace, caplog):
    folder = make_run(workspace)
    (folder / "tracking").write_text("in the way")
    tracker = open_run(workspace, folder)
    for step in range(3):
        tracker.log_metrics({"train/loss": 1.0}, step=step)
    tracker.finish("FINISHED")
    assert stored(workspace, tracker.run_id)[1]["train/loss"] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}/tracking/unsent.jsonl cannot be written, the training goes on, and a kill would lose what was not "
        "yet sent: File exists"
    ]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pipelines.tracking.journal import Journal, Line

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for step in range(1, 101):
    journal.add(Line(time=step, values={"train/loss": 0.5}))
"""


def test_a_disk_that_is_full_tears_no_line_and_ends_no_training(tmp_path):
    path = tmp_path / "tracking" / "unsent.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines() == [
        f"{path} cannot be written, the training goes on, and a kill would lose what was not yet sent: File too large"
    ]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["time"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) > 15
