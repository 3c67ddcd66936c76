"""What a model must know of the run, beside the fields of its section."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLASSIFIER_LOSSES = {"multilabel": "binary_cross_entropy", "regression": "mse"}
"""Task -> loss of a classifier's head; the tasks with classes have cross-entropy."""


@dataclass(frozen=True)
class ModelContext:
    """What a model must know of the run.

    `num_classes` is None for text, `seed` is for models without torch's, and `weights` is the checkpoint that the run
    itself holds to start from, in place of the one that the experiment names. Rows `kept_ids` of published weights are
    those of a trimmed vocabulary. `in_chans` is the number of channels of images.
    """

    task: str
    num_classes: int | None
    seed: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    vocab_size: int | None = None
    weights: Path | None = None
    kept_ids: Sequence[int] | None = None
    in_chans: int | None = None

    @property
    def classifier_loss(self) -> str:
        """The loss of a classifier's head for the task."""
        return CLASSIFIER_LOSSES.get(self.task, "cross_entropy")
