"""Seeded signals at seeded moments, once or twice: one line, no traceback, no folder that is no run."""

import random
import signal
import subprocess
import time

import pytest
from podium_processes import PODIUM, wait_for_handlers

from pipelines.workspace import Workspace

pytestmark = pytest.mark.nightly
COMMANDS = [
    ["train", "smoke/mt5_adafactor", "data.vocabulary=character", "tracking.name=none", "training.num_steps=400"],
    ["train", "bbc_headlines_linear", "tracking.name=none"],
    ["find-lr", "smoke/mt5_adafactor", "data.vocabulary=character"],
    ["data", "prepare", "place_names", "--force"],
    ["lock"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_any_signal_at_any_moment(template, command):
    workspace, source = Workspace(template), random.Random(7)
    for _ in range(25):
        number = source.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process = subprocess.Popen(
            [PODIUM, "--root", workspace.root, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        wait_for_handlers(process)
        time.sleep(source.uniform(0, 4))
        process.send_signal(number)
        if source.random() < 0.4:
            time.sleep(source.choice([0.001, 0.01, 0.05, 0.2]))
            process.send_signal(number)
        said = process.communicate(timeout=120)[1]
        # A second signal may find the interpreter on its way out, with all said.
        assert process.returncode in (0, 2, 128 + number, -number), said
        assert "Traceback" not in said
        # One that came after the end of the command has nothing to tell.
        assert process.returncode == 0 or not said or said.splitlines()[-1].startswith("podium: ")
        assert [path for path in workspace.runs.glob("*/*") if not (path / "run.json").exists()] == []
        assert list(workspace.root.rglob("*.partial")) == []
