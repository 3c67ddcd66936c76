"""What every model returns, so that one loop trains them all."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class ModelOutput:
    """Logits, and the mean loss over the targets that count when labels were given."""

    logits: Tensor
    loss: Tensor | None = None
