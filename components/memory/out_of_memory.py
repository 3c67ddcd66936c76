"""What a training does when a device's memory does not suffice for a micro-step: it begins the step again, in less.

A plan that keeps less comes first, as it changes nothing but time; then micro-batches are halved, and accumulation
keeps the global batch as it was. Both are part of the progress that resume points carry.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Window = Sequence[tuple[dict[str, Tensor], bool]]


class MemoryKeeper(Protocol):
    """Who chooses what layers keep for the backward pass; plans are texts."""

    def begin(self, plan: str) -> str:
        """Put the plan to work that a resume point recorded, or, where that is empty, choose one; returns it."""

    def reduce(self, plan: str) -> str | None:
        """Put a plan to work that needs less than `plan`, which did not fit; None where there is none."""


def find_norms(model: nn.Module) -> list[_NormBase]:
    """The norms that keep statistics; a walk over all modules, which is too slow for every step."""
    return [module for module in model.modules() if isinstance(module, _NormBase)]


class StepStart:
    """What forward passes change: torch's random states, and the statistics of norms."""

    def __init__(self, device: torch.device, norms: Sequence[_NormBase]) -> None:
        self.device = device
        self.host_state = torch.get_rng_state()
        self.device_state = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.statistics = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]

    def restore(self) -> None:
        torch.set_rng_state(self.host_state)
        if self.device_state is not None:
            torch.cuda.set_rng_state(self.device_state, self.device)
        for buffer, before in self.statistics:
            buffer.copy_(before)


def divide_window(window: Window, num_parts: int) -> list[tuple[dict[str, Tensor], bool]]:
    """Every micro-batch in so many parts of alike many rows, or as many as it has rows.

    Raises ValueError where tensors do not all begin with rows.
    """
    if num_parts == 1:
        return list(window)
    return [(part, is_empty) for batch, is_empty in window for part in divide_batch(batch, num_parts)]


def divide_batch(batch: Mapping[str, Tensor], num_parts: int) -> list[dict[str, Tensor]]:
    """Consecutive rows of every tensor; sizes differ by one at the most."""
    num_rows = count_rows(batch)
    parts = {name: value.tensor_split(min(num_parts, num_rows)) for name, value in batch.items()}
    return [dict(zip(parts, pieces, strict=True)) for pieces in zip(*parts.values(), strict=True)]


def count_rows(batch: Mapping[str, Tensor]) -> int:
    """Rows of a batch. Raises ValueError where its tensors do not all begin with rows."""
    num_rows = len(next(iter(batch.values())))
    if any(value.dim() == 0 or len(value) != num_rows for value in batch.values()):
        shapes = {name: list(value.shape) for name, value in batch.items()}
        raise ValueError(f"a batch of {shapes} cannot be divided: rows must stand first in every tensor")
    return num_rows
