"""What holds for every learner of a neural network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

# torch starts its worker threads with the product, after the learner is there; two of them share it
SCRIPT = """
from pathlib import Path
from types import SimpleNamespace

import torch

from pipelines.config.load import load_experiment
from pipelines.config.workspace import Workspace
from pipelines.engine.text_learner import TextLearner

torch.set_num_threads(2)
experiment = load_experiment(Workspace(Path()), "smoke/mt5_adafactor", ["training.num_threads=2"])
TextLearner(experiment, None, SimpleNamespace(path=Path()))
print((torch.full((2, 1 << 20), 1e-30) * 1e-12).count_nonzero().item())
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush subnormal numbers")
def test_subnormal_numbers_are_zero_in_training_on_every_thread():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr
