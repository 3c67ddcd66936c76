"""SMOKE, OVERFIT, RESUME and AGAIN: what is on, what is off, and what is refused, in podium and in make alike."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from podium_processes import make_command

from pipelines.errors import PodiumError
from pipelines.modes import chosen_mode

ON = ["1", "true", "TRUE", "True", "yes", "on", "oN"]
OFF = ["", "0", "false", "False", "no", "NO", "off"]
NEITHER = ["maybe", "2", "-1", "1 0", "truee"]


@pytest.mark.parametrize("name", ["SMOKE", "OVERFIT"])
@pytest.mark.parametrize("value", [*ON, *OFF, *NEITHER, None])
def test_a_mode_is_on_off_or_refused(name, value, monkeypatch):
    for other in ("SMOKE", "OVERFIT"):
        monkeypatch.delenv(other, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    if value in NEITHER:
        message = rf"^{name}={value}: is neither on nor off; write {name}=1 \(true, yes, on\) or {name}=0$"
        with pytest.raises(PodiumError, match=message):
            chosen_mode()
    else:
        assert chosen_mode() == (name.lower() if value in ON else None)


def test_the_other_mode_may_be_off(monkeypatch):
    monkeypatch.setenv("SMOKE", "false")
    monkeypatch.setenv("OVERFIT", "yes")
    assert chosen_mode() == "overfit"
    monkeypatch.setenv("SMOKE", "on")
    with pytest.raises(PodiumError, match="both set"):
        chosen_mode()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "name", "option"), [("kernel", "RESUME", "--resume"), ("push", "AGAIN", "--again")])
def test_make_hands_a_switch_on_only_where_it_is_on(target, name, option):
    for value in ON:
        assert make_command(target, K="k", **{name: value})[-1] == option
    for value in OFF:
        assert option not in make_command(target, K="k", **{name: value})
    assert option not in make_command(target, K="k")
    for value in NEITHER:
        with pytest.raises(subprocess.CalledProcessError) as refusal:
            make_command(target, K="k", **{name: value})
        (line,) = refusal.value.stderr.splitlines()
        assert f"{name}={value} is neither on nor off; write {name}=1 (true, yes, on) or {name}=0" in line


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "variables", "expected"),
    [
        ("resume", {"RUN": "20260101-000000-abcd"}, "resume --run 20260101-000000-abcd"),
        ("resume", {"EXP": "mt5", "RUN": "runs/a b"}, "resume mt5 --run runs/a b"),
        ("experiment", {"EXP": "mt5", "SET": "--root=x --r --nnodes=3 a=1 -- -- b=--c"},
         "train mt5 --root=x --r --nnodes=3 a=1 -- -- b=--c"),
    ],
)  # fmt: skip
def test_torchrun_takes_no_option_of_podium_for_its_own(target, variables, expected, tmp_path):
    """A real torchrun, whose processes write down what they were given."""
    command = make_command(target, NPROC="2", **variables)
    podium = next(word for word in command if Path(word).name == "podium")
    assert Path(command[0]).name == "torchrun"
    echo = tmp_path / "podium"
    echo.write_text(f'#!/bin/sh\necho "$*" > {shlex.quote(str(tmp_path))}/$RANK\n')
    echo.chmod(0o755)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [str(echo) if word == podium else word for word in command], check=True, env=environment, timeout=120
    )
    assert [(tmp_path / rank).read_text().strip() for rank in "01"] == [expected, expected]
