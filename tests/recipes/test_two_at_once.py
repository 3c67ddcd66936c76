"""A second command on a run that is being trained is refused, and what it must not touch stays untouched."""

import json
import signal
import subprocess
import time

import pytest
from podium_processes import PODIUM, only_run, podium

pytestmark = pytest.mark.processes
LONG = [
    "data.vocabulary=character",
    "tracking.name=none",
    "training.num_steps=100000",
    "training.eval_every_steps=100000",
    "training.checkpoint_every_steps=5",
]
MLFLOW = ["data.vocabulary=character", "tracking.name=mlflow"]


def wait_for(condition, process):
    """Until a condition holds; the test fails where the process has ended before."""
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def test_a_resume_of_a_run_that_is_being_trained_is_refused(workspace):
    command = [PODIUM, "--root", workspace.root, "train", "smoke/mt5_adafactor", *LONG]
    training = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: list(workspace.runs.glob("*/*/fold0/resume/step-*/state.json")), training)
        run = only_run(workspace)
        record = (run / "run.json").read_bytes()
        for arguments in (["resume", "smoke/mt5_adafactor"], ["predict", "--run", run.name]):
            refused = podium(workspace.root, *arguments, check=False)
            assert refused.returncode == 2
            start = f"podium: {run}: is being written by `podium --root {workspace.root} train smoke/mt5_adafactor "
            assert refused.stderr.startswith(start)
            assert f"(process {training.pid} of " in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        assert (run / "run.json").read_bytes() == record
        training.send_signal(signal.SIGINT)
        said = training.communicate(timeout=120)[1]
    finally:
        training.kill()
    assert training.returncode == 2
    assert said.splitlines()[-1].endswith(f"go on with: make resume RUN={run.name}")
    steps = [json.loads(line)["step"] for line in (run / "fold0" / "history.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_a_tracker_that_cannot_open_leaves_nothing_behind(workspace):
    workspace.mlflow_db.mkdir()
    refused = podium(workspace.root, "train", "smoke/mt5_adafactor", *MLFLOW, check=False)
    assert refused.returncode == 2
    said = refused.stderr.splitlines()[-1]
    assert said.startswith(f"podium: MLflow at sqlite:///{workspace.mlflow_db} cannot be used: ")
    assert list(workspace.runs.glob("*/*")) == []
