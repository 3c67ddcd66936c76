"""What holds for every learner of a neural network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas import DataFrame
from tiny_competition import make_competition

from pipelines.engine.neural_learner import _interleave
from pipelines.engine.scoring import frame_probabilities

# torch starts its worker threads with the product, after the learner is there; two of them share it
SCRIPT = """
from pathlib import Path

import torch

from pipelines.config.load import load_experiment
from pipelines.config.workspace import Workspace
from pipelines.engine.processes import tune

torch.set_num_threads(2)
experiment = load_experiment(Workspace(Path()), "smoke/mt5_adafactor", ["training.num_threads=2"])
tune(experiment)
print((torch.full((2, 1 << 20), 1e-30) * 1e-12).count_nonzero().item())
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush subnormal numbers")
def test_subnormal_numbers_are_zero_in_training_on_every_thread():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize(
    ("task", "width", "classes"),
    [("binary", 2, ()), ("multiclass", 3, ("a", "b", "c")), ("multilabel", 2, ()), ("regression", 1, ())],
)
def test_a_process_without_a_validation_row_takes_part(task, width, classes):
    """Of one row and two processes, one has nothing to predict; joined, it is as with one process."""
    metric = {"regression": "rmse", "binary": "log_loss"}.get(task, "log_loss" if task == "multiclass" else "f1")
    labels = ("one", "two") if task == "multilabel" else ("label",)
    rules = make_competition(task=task, metric=metric, extra_metrics=(), class_names=classes, label_columns=labels)
    frame = DataFrame({"id": ["7"]})
    whole = frame_probabilities(rules, frame, np.full((1, width), 0.25))
    nothing = frame_probabilities(rules, frame.iloc[1:], np.zeros((0, 0)))
    assert nothing.columns.tolist() == whole.columns.tolist()
    assert _interleave([whole, nothing]).to_dict() == whole.to_dict()
