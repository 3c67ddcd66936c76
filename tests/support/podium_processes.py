"""The command line in processes of its own, one of which kills itself, and what a run leaves behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from project import ROOT, SUPPORT

PODIUM = Path(sys.executable).with_name("podium")


def podium(root, *arguments, launcher=(), check=True):
    result = subprocess.run(
        [*launcher, PODIUM, "--root", root, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def killed_podium(root, moment, *arguments, launcher=()):
    driver = [sys.executable, SUPPORT / "self_killing_podium.py", moment[0], str(moment[1])]
    result = subprocess.run(
        [*launcher, *driver, "--root", root, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode != 0
    return result


def make_command(target, **variables):
    """The words of the command that `make TARGET NAME=VALUE ...` starts, from this interpreter's environment.

    Raises:
        subprocess.CalledProcessError: Where make refuses; its `stderr` holds the line.
    """
    settings = [f"{name}={value}" for name, value in variables.items()]
    # What .venv/.installed depends on is left alone, for the tests may run in another environment
    make = ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", target, *settings]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    shown = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    words = shlex.split(shown.stdout.splitlines()[-1])
    return [str(PODIUM.with_name(Path(word).name)) if word.startswith(".venv/bin/") else word for word in words]


def only_run(workspace):
    (record,) = workspace.runs.glob("*/*/run.json")
    return record.parent


def products(run):
    """Every file that a run is for; times and machine facts stand in run.json alone."""
    names = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    kept = [name for name in names if name.name not in ("run.json", "uncommitted.diff") and "figures" not in name.parts]
    return {str(name): (run / name).read_bytes() for name in sorted(kept)}


def wait_for_handlers(process):
    """Until python has a handler for SIGHUP, which podium sets before it imports what a command needs."""
    while True:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
        if caught >> (signal.SIGHUP - 1) & 1:
            return
        assert process.poll() is None
        time.sleep(0.01)
