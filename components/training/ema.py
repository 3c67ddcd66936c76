"""An exponential moving average of the weights, in float32, which evaluation and checkpoints can borrow."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows a model's trainable parameters: average ← average + (1 - decay)(weights - average) after each step.

    The decay rises as (1 + t) / (10 + t) until it reaches `decay`, so that the first weights, which know nothing,
    are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"ema_decay is {decay}; it must lie between 0 and 1, for instance 0.999")
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimizer step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [p.float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), weights, 1.0 - decay)

    def load(self, averages: dict[str, Tensor]) -> None:
        """Take over averages that were saved."""
        for name, average in self.averages.items():
            average.copy_(averages[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model carries the average; afterwards its own weights again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._assign(self.averages)
            yield
        finally:
            self._assign(own)

    @torch.no_grad()
    def _assign(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
