"""A regression in two processes: both learn the same standardised targets, and validation puts every share back."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from podium_processes import only_run
from tiny_competition import write_lines
from tiny_regression import save_tiny_bert, write_experiment, write_texts

from components.data.target_scale import load_target_scale
from pipelines.workspace import Workspace

pytestmark = pytest.mark.nightly

TORCHRUN = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node=2", "--no-python"]
COMPETITION = """\
from pipelines.competitions.competition import Competition, FoldDefaults

COMPETITION = Competition(
    name="tiny_task", title="Tiny", task="regression", kaggle_slug="tiny-task", host="local", id_column="id",
    input_columns=("text",), label_columns=("label",), metric="rmse", folds=FoldDefaults(name="kfold", num_folds=2),
)
"""
PODIUM = """\
import sys

import pipelines.competitions

pipelines.competitions.__path__.append(sys.argv[1])
from pipelines.cli import main

main(sys.argv[2:])
"""
"""The command line with one more folder of competitions."""


def test_two_processes_learn_as_one(tmp_path):
    table = write_lines(tmp_path / "table" / "tiny_task.py", COMPETITION).parent
    checkpoint = save_tiny_bert(tmp_path / "checkpoint")
    scales, predictions = [], []
    for launcher in ((), TORCHRUN):
        workspace = Workspace(tmp_path / f"processes_{1 + bool(launcher)}")
        write_texts(workspace.data_dir("tiny-task"))
        name = write_experiment(workspace.root, "bert", str(checkpoint))
        words = ["model.dropout=0", "model.attention_dropout=0", "model.head_dropout=0", "fold=0"]
        command = [*launcher, sys.executable, "-c", PODIUM, table, "--root", workspace.root, "train", name, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        run = only_run(workspace)
        (kept,) = run.glob("fold0/checkpoints/*")
        scales.append(load_target_scale(kept))
        predictions.append(pd.read_parquet(run / "oof.parquet")["prediction"].to_numpy())
    assert scales[0] == scales[1]
    assert predictions[0] == pytest.approx(predictions[1], rel=1e-4)
