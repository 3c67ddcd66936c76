"""A run killed with SIGKILL at any moment, then resumed, ends in the bytes of one that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from podium_processes import killed_podium, make_command, only_run, podium, products
from small_runs import tear

from components.training.history import read_history

pytestmark = pytest.mark.processes

TORCHRUN = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node=2", "--no-python"]
OVERRIDES = [
    "tracking.name=none",
    "folds.name=group",
    "folds.num_folds=2",
    "data.vocabulary=character",
    "training.num_steps=9",
    "training.eval_every_steps=4",
    "training.checkpoint_every_steps=3",
    "training.ema_decay=0.9",
    "model.dropout=0.1",
    "training.num_threads=1",
]
MOMENTS = {
    "in the middle of an epoch": ("components.training.loop:TrainingLoop._step", 6),
    "during a checkpoint write": ("components.training.checkpoint:save_optimizer", 2),
    "during a validation": ("components.models.t5.prediction:generate", 2),
    "between folds": ("pipelines.training.training_run:_split", 2),
    "after the last step": ("pipelines.training.training_run:_predict_oof", 2),
}


@pytest.fixture(scope="module")
def uninterrupted(template, tmp_path_factory):
    import shutil

    from pipelines.workspace import Workspace

    root = tmp_path_factory.mktemp("straight") / "checkout"
    shutil.copytree(template, root)
    podium(root, "train", "smoke/mt5_adafactor", *OVERRIDES)
    return products(only_run(Workspace(root)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_same_bytes(workspace, uninterrupted, moment):
    result = killed_podium(workspace.root, MOMENTS[moment], "train", "smoke/mt5_adafactor", *OVERRIDES)
    assert result.returncode == -9
    run = only_run(workspace)
    assert not (run / "metrics.json").exists()
    podium(workspace.root, "resume", "smoke/mt5_adafactor")
    assert only_run(workspace) == run
    resumed = products(run)
    assert list(resumed) == list(uninterrupted)
    assert [name for name in resumed if resumed[name] != uninterrupted[name]] == []
    for name in ("fold0/oof.parquet", "fold1/result.json", "oof.parquet", "metrics.json", "submission.csv"):
        assert name in resumed


def test_two_processes_train_as_one_and_resume(workspace, template, tmp_path):
    overrides = [
        *OVERRIDES,
        "fold=0",
        "model.dropout=0",
        "training.num_steps=50",
        "training.eval_every_steps=50",
        "training.checkpoint_every_steps=10",
        "training.log_every_steps=1",
        "training.gradient_accumulation_steps=2",
        "optimizer.lr=1e-3",
    ]
    import shutil

    from pipelines.workspace import Workspace

    one = Workspace(tmp_path / "one")
    shutil.copytree(template, one.root)
    podium(one.root, "train", "smoke/mt5_adafactor", *overrides)
    killed_podium(
        workspace.root,
        ("components.training.loop:TrainingLoop._step", 31),
        "train",
        "smoke/mt5_adafactor",
        *overrides,
        launcher=TORCHRUN,
    )
    refused = podium(workspace.root, "resume", "smoke/mt5_adafactor", check=False)
    assert refused.returncode == 2
    assert "use NPROC=2" in refused.stderr
    # Both go on from the point before the newest, and it is said once.
    tear(only_run(workspace) / "fold0/resume/step-00000030/optimizer.safetensors")
    # As a user resumes it: podium's --run must reach podium through torchrun
    resumed = subprocess.run(
        make_command("resume", RUN=only_run(workspace).name, NPROC="2"),
        cwd=workspace.root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("the resume point of step 30 is not used, training goes on from step 20") == 1
    losses = [
        [entry["train/loss"] for entry in read_history(only_run(w) / "fold0/history.jsonl") if "train/loss" in entry]
        for w in (one, workspace)
    ]
    assert len(losses[0]) == len(losses[1]) == 50
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (only_run(workspace) / "submission.csv").exists()


@pytest.mark.parametrize("experiment", ["smoke/xcit_nano_fashion", "smoke/xcit_small_finetune"])
def test_images_go_on_being_changed_as_they_would_have_been(workspace, leaves, experiment):
    """Killed in the middle of an epoch: shifts, crops, mixing and BatchNorm end in the same bytes."""
    name = experiment.replace("/", "_")
    changes = ["tracking.name=none", "training.num_threads=1", "data.erase=0.5", "data.mixup=0.4"]
    podium(workspace.root, "train", experiment, *changes)
    straight = only_run(workspace)
    killed_podium(workspace.root, MOMENTS["in the middle of an epoch"], "train", experiment, *changes)
    podium(workspace.root, "resume", experiment)
    (resumed,) = set((workspace.runs / name).iterdir()) - {straight}
    assert products(resumed) == products(straight)
