"""A real server that hangs holds nobody up, and has everything once in the end."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mlflow.tracking import MlflowClient
from mlflow_servers import free_port, running_server, silent_server

from pipelines.errors import PodiumError
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace

TRAINING = """
import sys, time
from pathlib import Path
from pipelines.tracking.mlflow import sending
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace

sending.PATIENCE = sending.Patience(60.0, 4.0)
workspace, folder = Workspace(Path(sys.argv[1])), Path(sys.argv[2])
tracker = open_mlflow_tracker(
    workspace, competition="place-names", run_name=folder.name, run_dir=folder, flush_seconds=0.2
)
tracker.child("fold0").log_metrics({"train/loss": 1.0}, step=1)
tracker.flush()
print(tracker.run_id, flush=True)
sys.stdin.readline()
for fold in range(10):
    for step in range(2, 40):
        tracker.child(f"fold{fold}").log_metrics({"train/loss": 1 / step}, step=step)
tracker.log_text("a diff", "git.diff")
time.sleep(1)
started = time.monotonic()
tracker.finish("FINISHED")
print(time.monotonic() - started, tracker.num_unsent, flush=True)
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "checkout")
    (workspace.runs / "first" / "r1").mkdir(parents=True)
    return workspace


def test_a_server_that_stops_answering_holds_nobody_up_and_has_all_in_the_end(workspace, tmp_path, database_template):
    shutil.copy(database_template, tmp_path / "server.db")
    folder = workspace.runs / "first" / "r1"
    with running_server(tmp_path / "server", tmp_path / "server.db") as server:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri}
        training = subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(workspace.root), str(folder)],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        run_id = training.stdout.readline().strip()
        server.send_signal(signal.SIGSTOP)
        said, warned = training.communicate("go\n", timeout=120)
        seconds, num_unsent = said.split()
        assert 3 < float(seconds) < 40
        assert training.returncode == 0
        assert int(num_unsent) == 10 * 38 + 1 + 11
        assert warned.splitlines()[-1].startswith(f"392 entries could not be sent to {server.uri} (")
        server.send_signal(signal.SIGCONT)
        podium = [sys.executable, "-c", "from pipelines.cli import main; main()", "--root", str(workspace.root)]
        sent = subprocess.run([*podium, "tracking", "send"], env=environment, text=True, capture_output=True)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert sent.stdout.startswith(f"{folder}: 392 entries that were left unsent are in MLflow now")
    client = MlflowClient(f"sqlite:///{tmp_path / 'server.db'}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert sorted(child.info.run_name for child in children) == [f"fold{fold}" for fold in range(10)]
    for child in children:
        first = [(1, 1.0)] if child.info.run_name == "fold0" else []
        expected = first + [(step, 1 / step) for step in range(2, 40)]
        points = client.get_metric_history(child.info.run_id, "train/loss")
        above = client.get_metric_history(run_id, f"train/loss/{child.info.run_name}")
        assert [(point.step, point.value) for point in points] == expected
        assert [(point.step, point.value) for point in above] == expected
        assert child.info.status == "FINISHED"
    assert not (folder / "tracking").exists()


def test_a_server_that_never_answers_is_found_out_by_its_first_request(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    folder = workspace.runs / "first" / "r1"
    with silent_server() as uri:
        for place in (uri, f"http://127.0.0.1:{free_port()}"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
            started = time.monotonic()
            with pytest.raises(PodiumError, match=f"MLflow at {place} cannot be used: ") as error:
                open_mlflow_tracker(workspace, competition="place-names", run_name="r1", run_dir=folder)
            assert "\n" not in str(error.value)
            assert time.monotonic() - started < 20
    assert list(folder.iterdir()) == []


def test_requests_are_short_and_only_the_sender_repeats_them():
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
    program = f"import pipelines.tracking.mlflow.store, os; print({{k: os.environ[k] for k in {list(settings)}}})"
    clean = {key: value for key, value in os.environ.items() if key not in settings}
    answer = subprocess.run([sys.executable, "-c", program], env=clean, text=True, capture_output=True, check=True)
    assert answer.stdout.strip() == str(settings)
