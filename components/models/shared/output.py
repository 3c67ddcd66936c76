"""What every model returns, so that one loop trains them all."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class ModelOutput:
    """Logits, unless the model was not asked for them, and the mean loss over the targets that count, given labels."""

    logits: Tensor | None
    loss: Tensor | None = None
