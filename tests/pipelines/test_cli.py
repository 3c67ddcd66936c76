"""The command line as a table of rooms: what its help shows, and that a command reads its experiment once."""

import argparse

import pytest
from project import ROOT
from tiny_competition import write_lines

import pipelines.config.load
from pipelines.cli import ROOMS, build_parser, main
from pipelines.config.experiment_file import read_experiment
from pipelines.workspace import Workspace


def commands():
    (group,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return group.choices


def test_help_fits_on_one_screen_with_each_command_under_its_room():
    lines = build_parser().format_help().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    table = lines[4:-1]
    assert [line.split()[0] for line in table if not line.startswith(" ")] == list(ROOMS)
    start = max(map(len, ROOMS)) + 2
    listed = [name for line in table for name in line[start:].split("  ")[0].split(", ")]
    assert listed == list(commands())


@pytest.mark.parametrize("name", list(commands()))
def test_the_usage_of_a_command_begins_with_its_words(name):
    assert commands()[name].format_usage().startswith(f"usage: podium {name} ")


def test_each_room_with_commands_is_in_the_table():
    declared = {path.parent.name for path in (ROOT / "pipelines").glob("*/commands.py")}
    assert declared == {room.__module__.split(".")[1] for room in ROOMS.values()}


@pytest.mark.parametrize("words", [["train"], ["find-lr"], ["kernel", "build"]])
@pytest.mark.parametrize("mode", ["", "1"])
def test_a_command_reads_its_experiment_once(words, mode, tmp_path, monkeypatch, capsys):
    """Up to the data, which are not there."""
    read = []
    monkeypatch.setattr(
        pipelines.config.load, "read_experiment", lambda *given: read.append(given[1]) or read_experiment(*given)
    )
    monkeypatch.setenv("SMOKE", mode)
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    workspace = Workspace(tmp_path)
    for name in ("mt5_watson", "mt5_watson_two_stage"):
        write_lines(workspace.experiments / f"{name}.yaml", (ROOT / "experiments" / f"{name}.yaml").read_text())
    write_lines(workspace.kernels / "watson" / "kernel.yaml", "title: Watson", "mode: train", "experiment: mt5_watson",
                "internet: true", "accelerator: NvidiaTeslaT4")  # fmt: skip
    subject = "watson" if words[0] == "kernel" else "mt5_watson"
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), *words, subject])
    assert "podium data download contradictory-my-dear-watson" in capsys.readouterr().err
    assert read == ["mt5_watson"]
