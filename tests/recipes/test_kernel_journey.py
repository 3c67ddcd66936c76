"""Generated kernels all the way: built, pushed to the stand-in, really run there, pulled, submitted, taken in."""

import json
import shutil

import pytest
from kaggle_standin import KaggleStandIn, connect, sign_in
from project import ROOT

from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

SMALL = ["data.vocabulary=character", "model.num_beams=1", "training.num_threads=1"]


@pytest.fixture
def workspace(workspace, monkeypatch, tmp_path):
    """The miniature checkout with the kernels, signed in as alice to a Kaggle on loopback."""
    sign_in(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("SMOKE", "1")
    shutil.copytree(ROOT / "kernels", workspace.kernels)
    with KaggleStandIn() as server:
        connect(monkeypatch, server)
        yield Workspace(workspace.root)


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def test_a_predicting_kernel_comes_back_with_the_bytes_of_the_run(workspace, capsys):
    podium(workspace, "train", "mt5_adafactor", "tracking.name=jsonl", *SMALL)
    podium(workspace, "kernel", "build", "mt5-adafactor")
    podium(workspace, "push", "mt5-adafactor", "--wait")
    pulled = workspace.build / "outputs" / "mt5-adafactor" / "v1"
    run = Run.newest_finished(workspace.runs, "mt5_adafactor", mode="smoke")
    assert (pulled / "submission.csv").read_bytes() == run.submission_file.read_bytes()
    capsys.readouterr()
    podium(workspace, "submit", "--kernel", "mt5-adafactor")
    assert "lb/public exact_match" in capsys.readouterr().out
    podium(workspace, "push", "mt5-adafactor")
    assert "is this very content; it is not pushed twice" in capsys.readouterr().out


def test_a_training_kernel_runs_out_of_time_goes_on_and_its_run_is_taken_in(workspace, capsys):
    path = workspace.kernels / "mt5-adafactor-train" / "kernel.yaml"
    text = path.read_text().replace("accelerator: NvidiaTeslaT4\n", "") + f"overrides: {json.dumps(SMALL)}\n"
    # A limit that leaves a training no time: it saves itself after its first step.
    path.write_text(text.replace("time_limit_hours: 9", "time_limit_hours: 0.1") + "reserve_minutes: 5.9999\n")
    podium(workspace, "kernel", "build", "mt5-adafactor-train")
    podium(workspace, "push", "mt5-adafactor-train", "--wait")
    assert "out of time, and saved" in capsys.readouterr().out
    path.write_text(text)
    podium(workspace, "kernel", "build", "mt5-adafactor-train", "--resume")
    podium(workspace, "push", "mt5-adafactor-train", "--wait")
    assert "going on with /kaggle/input/notebooks/alice/mt5-adafactor-train/runs" in capsys.readouterr().out
    pulled = workspace.build / "outputs" / "mt5-adafactor-train" / "v2"
    podium(workspace, "runs", "import", str(pulled))
    (record,) = Run.list(workspace.runs, "mt5_adafactor")
    assert (record.status, record.mode) == ("finished", "smoke"), (
        "a kernel that was built with SMOKE=1 trains no real run"
    )
    assert record.submission_file.read_bytes() == (pulled / "submission.csv").read_bytes()
    run = Run(record.path)
    assert run.trained_checkpoints()[0].is_dir()
    assert run.read_record().kernel == "alice/mt5-adafactor-train"
