"""Whole trainings against a server that is away, hangs or dies: they end in time, and MLflow has everything once."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from mlflow.tracking import MlflowClient
from mlflow_servers import free_port, running_server, silent_server
from podium_processes import PODIUM, killed_podium, only_run, podium

pytestmark = pytest.mark.nightly
# What the training may wait for its store once it is done; the aim is half of it.
LIMIT_SECONDS = 60
TRAIN = [
    "train", "smoke/mt5_adafactor", "data.vocabulary=character", "tracking.name=mlflow", "tracking.flush_seconds=1",
    "folds.num_folds=2", "folds.name=group", "training.num_steps=300", "training.eval_every_steps=100",
    "training.log_every_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def database_template(tmp_path_factory):
    from pipelines.tracking.mlflow.database import prepare_database
    from pipelines.workspace import Workspace

    return prepare_database(Workspace(tmp_path_factory.mktemp("template")))


def started(workspace, uri, *words):
    return subprocess.Popen(
        [PODIUM, "--root", workspace.root, *words],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def history(fold):
    path = fold / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def status(run):
    return json.loads((run / "run.json").read_text())["status"]


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_server_that_is_away_from_the_start_is_one_line_and_nothing_is_left_behind(workspace, is_silent):
    with silent_server() as silent:
        begun = time.monotonic()
        training = started(workspace, silent if is_silent else f"http://127.0.0.1:{free_port()}", *TRAIN)
        said = training.communicate(timeout=300)[1]
    assert time.monotonic() - begun < LIMIT_SECONDS
    assert training.returncode == 2
    (line,) = [line for line in said.splitlines() if line.startswith("podium: ")]
    assert "cannot be used: " in line
    assert list(workspace.runs.glob("*/*")) == []


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_that_goes_in_mid_run_holds_nobody_up_and_has_all_in_the_end(
    workspace, tmp_path, database_template, number
):
    shutil.copy(database_template, tmp_path / "server.db")
    with running_server(tmp_path / "server", tmp_path / "server.db") as server:
        training = started(workspace, server.uri, *TRAIN)
        wait_for(lambda: list(workspace.runs.glob("*/*/fold0/history.jsonl")), training)
        run = only_run(workspace)
        wait_for(lambda: len(history(run / "fold0")) > 50, training)
        server.send_signal(number)
        wait_for(lambda: status(run) == "finished", training)
        done = time.monotonic()
        said = training.communicate(timeout=1800)[1]
        seconds = time.monotonic() - done
        print(f"{number.name}: the process ended {seconds:.1f} s after its run had finished")
        assert seconds < LIMIT_SECONDS
        assert training.returncode == 0
        (line,) = [line for line in said.splitlines() if "entries could not be sent to" in line]
        assert f"; they lie in {run}/tracking/unsent.jsonl, and the next " in line
        if number == signal.SIGSTOP:
            server.send_signal(signal.SIGCONT)
        else:
            server._process.wait()
            server.start()
        sending = started(workspace, server.uri, "tracking", "send")
        assert "entries that were left unsent are in MLflow now" in sending.communicate(timeout=300)[0]
        assert sending.returncode == 0
    check_equal_to_its_files(run, MlflowClient(f"sqlite:///{tmp_path / 'server.db'}"))
    assert not (run / "tracking").exists()


def test_a_training_killed_between_its_end_and_the_last_sending_is_whole_after_the_next_command(workspace):
    words = [word for word in TRAIN if not word.startswith("tracking.flush_seconds")] + ["tracking.flush_seconds=600"]
    killed_podium(workspace.root, ("pipelines.tracking.mlflow.sending:Sender.stop", 1), *words)
    run = only_run(workspace)
    assert status(run) == "finished"
    client = MlflowClient(f"sqlite:///{workspace.mlflow_db}")
    run_id = json.loads((run / "run.json").read_text())["tracking"]["run_id"]
    assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).data.metrics == {}
    second = podium(workspace.root, *words)
    (line,) = [line for line in second.stderr.splitlines() if "are in MLflow now" in line]
    assert line.startswith(f"{run}: ")
    check_equal_to_its_files(run, client)
    assert list(workspace.runs.glob("*/*/tracking")) == []


def check_equal_to_its_files(run, client):
    """Each value of the folds' histories is in MLflow once, on the fold and on the run, and so are the scores."""
    record = json.loads((run / "run.json").read_text())
    tracked = client.get_run(record["tracking"]["run_id"])
    assert tracked.info.status == "FINISHED"
    scores = json.loads((run / "metrics.json").read_text())
    for key in [key for key in scores if key.startswith(("cv/", "oof/"))]:
        assert tracked.data.metrics[key] == scores[key]
    nested = f"tags.`mlflow.parentRunId` = '{tracked.info.run_id}'"
    children = {child.info.run_name: child for child in client.search_runs([tracked.info.experiment_id], nested)}
    assert sorted(children) == ["fold0", "fold1"]
    for name, child in children.items():
        assert child.info.status == "FINISHED"
        expected = [(line["step"], line["train/loss"]) for line in history(run / name) if "train/loss" in line]
        assert len(expected) > 250
        for run_id, key in ((child.info.run_id, "train/loss"), (tracked.info.run_id, f"train/loss/{name}")):
            assert [(point.step, point.value) for point in client.get_metric_history(run_id, key)] == expected
