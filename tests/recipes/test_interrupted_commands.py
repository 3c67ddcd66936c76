"""Ctrl-C, SIGTERM and a closed terminal at any time: one line that says how to go on, and nothing half-made."""

import os
import signal
import subprocess
import time

import pytest
from podium_processes import PODIUM, only_run, wait_for_handlers

from pipelines.cli import main
from pipelines.learners.tables import TableLearner

pytestmark = pytest.mark.processes
TRAIN = ["train", "smoke/mt5_adafactor", "data.vocabulary=character", "tracking.name=none"]
LINEAR = ["train", "bbc_headlines_linear", "tracking.name=none", "folds.name=stratified", "folds.num_folds=3"]


def start(workspace, *words):
    command = [PODIUM, "--root", workspace.root, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0), (signal.SIGINT, 0.9), (signal.SIGTERM, 0.5), (signal.SIGHUP, 0.3)]
)
def test_in_the_first_seconds(workspace, number, seconds):
    """In the midst of imports, which take longer than these."""
    process = start(workspace, *TRAIN, "training.num_steps=100000")
    wait_for_handlers(process)
    time.sleep(seconds)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number
    assert len(said.splitlines()) == 1
    # The very first moments do not know yet which command it is.
    assert said.startswith(
        (
            "podium: interrupted; nothing was begun: make experiment EXP=smoke/mt5_adafactor starts it",
            f"podium: interrupted; start it again with: podium --root {workspace.root} train smoke/mt5_adafactor ",
        )
    )
    assert list(workspace.runs.glob("*/*")) == []


def test_while_data_are_prepared(workspace):
    process = start(workspace, "data", "prepare", "place_names", "--force")
    assert process.stdout.readline() == "place_names: preparing ...\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM
    again = f"podium --root {workspace.root} data prepare place_names --force"
    assert said == f"podium: interrupted; start it again with: {again}\n"
    assert list(workspace.data.rglob(".preparing*")) == []


def test_a_closed_terminal_is_a_wish_to_stop(workspace):
    process = start(workspace, *TRAIN, "training.num_steps=100000", "training.checkpoint_every_steps=5")
    while not list(workspace.runs.glob("*/*/fold0/resume/step-*/state.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert said.splitlines()[-1].startswith("podium: stopped after step ")
    assert said.splitlines()[-1].endswith(f"; go on with: make resume RUN={only_run(workspace).name}")


@pytest.mark.parametrize("times", [1, 2])
def test_a_baseline_stops_between_folds_and_at_once_the_second_time(workspace, monkeypatch, capfd, times):
    fit = TableLearner.fit

    def interrupted(learner, job):
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return fit(learner, job)

    monkeypatch.setattr(TableLearner, "fit", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(workspace.root), *LINEAR])
    run = only_run(workspace)
    lines = capfd.readouterr().err.splitlines()
    assert "interrupted: this fold is fitted to its end first; a second Ctrl-C stops at once" in lines
    reason = "stopped before fold1" if times == 1 else "interrupted"
    assert lines[-1] == f"podium: {reason}; go on with: make resume RUN={run.name}"
    assert ended.value.code == 2
    assert [path.parent.name for path in run.glob("*/result.json")] == (["fold0"] if times == 1 else [])
    monkeypatch.setattr(TableLearner, "fit", fit)
    main(["--root", str(workspace.root), "resume", "--run", run.name])
    assert (run / "submission.csv").is_file()
