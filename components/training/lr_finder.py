"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3): one short sweep that shows which rates a
model and its optimizer bear, and leaves both as they were.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from components.memory.undoing import undone
from components.optim.schedules import apply_schedule

# Of the running mean that notices divergence; it looks back over about ten steps.
_MEMORY = 0.9
# Width of the window that smooths the curve, as a part of the whole sweep (one standard deviation).
_SMOOTHING = 0.03


@dataclass(frozen=True)
class LrCurve:
    """Rates (rising geometrically), the losses they led to, and what follows for the peak rate of a training.

    `losses[i]` was measured on the batch after the step at `lrs[i]`, `first_loss` on the untouched weights. `smoothed`
    averages neighbours on both sides, so that it does not lag behind the rates. `best_lr` is where `smoothed` is least:
    from there on steps do harm. `steepest_lr`, below it, is where `smoothed` falls fastest per factor of the rate, and
    is the suggestion; a tenth of `best_lr` is the more careful rule, for pretrained weights. Both are None where the
    loss never fell. A training that warms up, from random weights above all, bears several times more.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    first_loss: float
    has_diverged: bool
    steepest_lr: float | None
    best_lr: float | None


def find_lr(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    base_lr: float | None = None,
    start_lr: float = 1e-6,
    end_lr: float = 1.0,
    num_steps: int = 100,
    max_grad_norm: float | None = 1.0,
    divergence_factor: float = 4.0,
) -> LrCurve:
    """Train `num_steps` steps at rates that rise from `start_lr` to `end_lr`, then undo them.

    Weights, buffers, gradients, modes, the optimizer's state and groups, and the random states of python, numpy and
    torch are afterwards what they were, to the last bit, also after an error; so a training does not notice. Their
    copies wait in host memory. The sweep ends early when the running mean of the loss (which must be positive) passes
    `divergence_factor` times its least value, or the loss is not finite.

    Args:
        model: Maps a batch to an output with a `loss`. One that accelerate prepared brings its autocast; the loss is
            not scaled, so sweep in bfloat16 or float32 where training is in float16.
        optimizer: The one that will train, with its groups; each keeps its ratio to the others.
        batches: One batch a step, begun again when they are used up.
        base_lr: The rate that the curve's `lrs` replace, by default the largest of the groups; where a head has more
            than the body, give the body's.
        start_lr: First rate.
        end_lr: Last rate.
        num_steps: Steps of the sweep; one batch more is read.
        max_grad_norm: Clips gradients as the training will; None does not.
        divergence_factor: When to give up.

    Raises:
        ValueError: For a range or number that makes no sweep, no batches, a loss that is not finite from the start,
            or an optimizer that makes its own rate.
    """
    base_lr = _check(optimizer, base_lr, start_lr, end_lr, num_steps)
    lrs = np.geomspace(start_lr, end_lr, num_steps).tolist()
    losses: list[float] = []
    with undone(model, optimizer):
        model.train()
        for step, loss in enumerate(_sweep(model, optimizer, batches, [lr / base_lr for lr in lrs], max_grad_norm)):
            losses.append(loss)
            if step == 0 and not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} before the first step; look at the data before the rate")
            if _diverges(losses, divergence_factor):
                break
    if not losses:
        raise ValueError("batches is empty; a sweep needs one batch at least")
    return _describe(lrs, losses, divergence_factor, has_diverged=_diverges(losses, divergence_factor))


def _check(
    optimizer: torch.optim.Optimizer, base_lr: float | None, start_lr: float, end_lr: float, num_steps: int
) -> float:
    """Return the rate that the sweep replaces."""
    if not 0 < start_lr < end_lr < math.inf:
        raise ValueError(f"start_lr={start_lr} and end_lr={end_lr} make no sweep; the first must be smaller, above 0")
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} makes no curve; use 2 or more, 100 is usual")
    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    if any(rate is None for rate in rates):
        raise ValueError("find_lr has no rate to sweep: the optimizer makes its own; use relative_step=False and an lr")
    base = max(rates) if base_lr is None else base_lr
    if not 0 < base < math.inf:
        raise ValueError(f"base_lr={base} cannot be scaled; the optimizer's lr or base_lr must be above 0")
    return float(base)


def _sweep(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Mapping[str, Tensor]],
    factors: list[float],
    max_grad_norm: float | None,
) -> Iterator[float]:
    """Yield the loss before the first step and after each one; a step is taken when the next loss is asked for."""
    device = next(model.parameters()).device
    endless = itertools.cycle(batches)
    for factor, batch in zip([*factors, None], endless, strict=False):
        loss = model(**{key: value.to(device) for key, value in batch.items()}).loss
        yield float(loss.detach())
        if factor is None:
            return
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        apply_schedule(optimizer, factor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _running_means(losses: list[float]) -> list[float]:
    """Exponential means, corrected for their start at zero (as Adam's)."""
    means, total = [], 0.0
    for count, loss in enumerate(losses, start=1):
        total = _MEMORY * total + (1 - _MEMORY) * loss
        means.append(total / (1 - _MEMORY**count))
    return means


def _diverges(losses: list[float], divergence_factor: float) -> bool:
    if not losses or not math.isfinite(losses[-1]):
        return True
    means = _running_means(losses)
    return 0 < min(means) * divergence_factor < means[-1]


def _describe(lrs: list[float], losses: list[float], divergence_factor: float, *, has_diverged: bool) -> LrCurve:
    first, *measured = losses
    if measured and not math.isfinite(measured[-1]):
        measured.pop()
    limit = max(first, divergence_factor * min(_running_means([first, *measured])))
    smoothed = _smooth(measured, len(lrs), limit)
    best = int(np.argmin(smoothed)) if smoothed else 0
    has_fallen = best > 0 and first - smoothed[best] > 1e-6 * abs(first)  # more than rounding
    return LrCurve(
        lrs=tuple(lrs[: len(measured)]),
        losses=tuple(measured),
        smoothed=tuple(smoothed),
        first_loss=first,
        has_diverged=has_diverged,
        steepest_lr=lrs[int(np.argmin(np.gradient(smoothed)[: best + 1]))] if has_fallen else None,
        best_lr=lrs[best] if has_fallen else None,
    )


def _smooth(losses: list[float], num_steps: int, limit: float) -> list[float]:
    """Mean of the neighbours, weighed by a Gaussian; a loss counts `limit` at most, or the last one would drown all."""
    positions = np.arange(len(losses))
    width = max(1.0, _SMOOTHING * num_steps)
    weights = np.exp(-0.5 * ((positions[:, None] - positions) / width) ** 2)  # (N, N)
    smoothed: list[float] = (weights @ np.minimum(losses, limit) / weights.sum(axis=1)).tolist()
    return smoothed
