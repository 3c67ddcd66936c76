"""What a family of models must offer so that folds, OOF, resume and submission work for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pandas import DataFrame

from pipelines.runs.observer import RunObserver
from pipelines.runs.record import Prepared


@dataclass(frozen=True)
class FoldJob:
    """One training: which rows, where its files go, its seed, and who watches. `valid` is None for the full fit."""

    name: str
    folder: Path
    train: DataFrame
    valid: DataFrame | None
    seed: int
    observer: RunObserver


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class FitResult:
    """Where the weights that predict lie, relative to the fold's folder, and how long they were trained.

    `tidy` removes what only an unfinished fold needs.
    """

    checkpoint: str
    num_steps: int
    tidy: Callable[[], None] = _nothing


class Learner(Protocol):
    """Frames are canonical (`id`, inputs, `label`); predictions are frames too, see `pipelines.runs.scoring`."""

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Make, once for all folds, what a fold must not make for itself; returns what run.json shall say of it.

        `also` are texts of another competition that a vocabulary must be able to spell.
        """

    def fit(self, job: FoldJob) -> FitResult:
        """Train one fold, going on from its resume point where there is one."""

    def predict(self, checkpoints: Sequence[Path], frame: DataFrame) -> DataFrame:
        """Predictions for the rows of `frame` by all checkpoints together."""

    def draw_figures(self, job: FoldJob, checkpoint: Path, folder: Path) -> Sequence[Path]:
        """Pictures of what a fold's checkpoint has learnt, written to `folder`; none, as a rule."""
