"""Targets of a regression in units of their own spread, and the way back.

Optimizers take steps of a fixed size and gradients are clipped at 1, so a model whose targets lie around 180,000 never
gets there. It learns (target - mean) / standard deviation, whose values lie around 0, and its outputs are put back.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from components.files.atomic import read_json, write_json

TARGETS_FILE = "targets.json"
"""Stands beside the weights of a checkpoint whose model learnt standardised targets."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of some targets, both in the targets' unit; equal targets deviate by 0.0."""

    mean: float
    std: float

    def standardise(self, targets: ArrayLike) -> NDArray[np.float64]:
        """(N,) targets as a model learns them; equal targets become 0."""
        # Halved first: the distance of two numbers near the largest float64 is no float64.
        halves = np.asarray(targets, np.float64) / 2 - self.mean / 2
        return halves / (self.std / 2) if self.std else halves * 0.0

    def restore(self, outputs: ArrayLike) -> NDArray[np.float64]:
        """The inverse of `standardise` for a model's outputs of any shape; float64, since float32 has 7 digits only."""
        return np.asarray(outputs, np.float64) * self.std + self.mean


def measure_targets(targets: ArrayLike) -> TargetScale:
    """The scale of (N,) finite targets; the same targets in any order give the same bits on any machine.

    Raises ValueError where there is no target.
    """
    values = np.asarray(targets, np.float64)
    if not len(values):
        raise ValueError("there is no row to train on")
    first = float(values[0])
    if (values == first).all():
        return TargetScale(first, 0.0)
    # By a power of two, which loses no digit, so that no square is too large or too small for a float64.
    exponent = int(np.frexp(np.abs(values).max())[1])
    small = np.ldexp(values, -exponent)
    mean = math.fsum(small) / len(small)
    std = math.sqrt(math.fsum((small - mean) ** 2) / len(small))
    return TargetScale(math.ldexp(mean, exponent), math.ldexp(std, exponent))


def save_target_scale(scale: TargetScale, folder: Path) -> None:
    """Write `targets.json` into an existing folder; every bit is kept."""
    write_json(folder / TARGETS_FILE, asdict(scale))


def load_target_scale(folder: Path) -> TargetScale | None:
    """The scale that `save_target_scale` wrote, or None where the folder holds none: its targets are learnt as they are.

    Raises ValueError naming the file where it is damaged.
    """
    file = folder / TARGETS_FILE
    if not file.is_file():
        return None
    content = read_json(file)
    scale = [content.get(name) for name in ("mean", "std")] if isinstance(content, dict) else []
    match scale:
        case [int() | float() as mean, int() | float() as std] if math.isfinite(mean) and 0 <= std < math.inf:
            return TargetScale(float(mean), float(std))
    raise ValueError(f"{file}: {content!r} is no scale of targets; needs finite numbers, mean and std, and std at least 0")
