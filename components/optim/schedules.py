"""Learning-rate schedules as pure functions from a step to a factor on the base rate.

`schedule(step)` with step = 0, 1, 2, … is the factor of optimizer step number step + 1: set it, then call
`optimizer.step()`. Every schedule warms up linearly, (step + 1) / num_warmup_steps, so no step is spent at rate zero
and the last warm-up step runs at exactly 1.0; its curve then starts, at step num_warmup_steps, at exactly 1.0.

A run of num_steps uses the steps 0 … num_steps - 1. A curve that falls to `final_factor` reaches it at step num_steps,
one past the last that is used: with `final_factor=0` the last step still moves, by one part of the fall. From there on
the value holds. Nothing remembers the previous step, so resuming needs no state, and a stage cannot inherit an error
from the one before it. The functions also serve as `lr_lambda` of `torch.optim.lr_scheduler.LambdaLR`.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch.optim import Optimizer

Schedule = Callable[[int], float]


class Stage(NamedTuple):
    """One part of `build_multi_stage`: `schedule` sees the steps 0 … num_steps - 1, counted from the stage's start."""

    num_steps: int
    schedule: Schedule


def build_constant(*, num_steps: int, num_warmup_steps: int) -> Schedule:
    """Warm up, then stay at 1.0."""
    return _after_warmup(num_steps, num_warmup_steps, lambda _: 1.0)


def build_linear(*, num_steps: int, num_warmup_steps: int, final_factor: float) -> Schedule:
    """Warm up, then fall from 1.0 at step num_warmup_steps to `final_factor` at step num_steps on a straight line."""
    return _falling(lambda progress: 1 - progress, num_steps, num_warmup_steps, final_factor)


def build_cosine(*, num_steps: int, num_warmup_steps: int, final_factor: float) -> Schedule:
    """Warm up, then fall from 1.0 to `final_factor` on half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return _falling(lambda progress: (1 + math.cos(math.pi * progress)) / 2, num_steps, num_warmup_steps, final_factor)


def build_inverse_sqrt(*, num_steps: int, num_warmup_steps: int, time_scale: int) -> Schedule:
    """Warm up, then fall as sqrt(time_scale / (time_scale + i)), i the steps since the warm-up; never reaches zero.

    The factor is one half after 3 * time_scale steps. `time_scale=num_warmup_steps` gives the curve of the Transformer
    (Vaswani et al. 2017, section 5.3).
    """
    _check_count("time_scale", time_scale, minimum=1)
    return _after_warmup(num_steps, num_warmup_steps, lambda i: math.sqrt(time_scale / (time_scale + i)))


def build_multi_stage(*, stages: Sequence[Stage]) -> Schedule:
    """Run one schedule after another; after its last step the last stage's schedule goes on.

    The first step of a stage takes the value its own schedule has at 0, whatever came before. A warm-up that is a
    stage of its own is `Stage(n, build_constant(num_steps=n, num_warmup_steps=n))`.
    """
    if not stages:
        raise ValueError("stages is empty; give at least one Stage(num_steps, schedule)")
    for index, stage in enumerate(stages):
        _check_count(f"stages[{index}].num_steps", stage.num_steps, minimum=1)
    starts = list(itertools.accumulate((stage.num_steps for stage in stages[:-1]), initial=0))
    schedules = [stage.schedule for stage in stages]

    def schedule(step: int) -> float:
        index = bisect.bisect_right(starts, step) - 1
        assert index >= 0, f"step {step} lies before the first step, 0"
        return schedules[index](step - starts[index])

    return schedule


def apply_schedule(optimizer: Optimizer, factor: float) -> None:
    """Set the rate of every group to `group["initial_lr"] * factor`, `schedule(step)` in most cases.

    The first call takes each group's present rate as its `initial_lr`, which the optimizer's state_dict carries; the
    factor is always applied to it and never to the previous rate.

    Raises:
        ValueError: For a negative or non-finite factor, or a group without a rate.
    """
    if not 0 <= factor < math.inf:
        raise ValueError(f"a schedule's factor of {factor} cannot scale a rate; it must be finite and not negative")
    for index, group in enumerate(optimizer.param_groups):
        if group["lr"] is None:
            raise ValueError(
                f"parameter group {index} has lr=None, so there is nothing to schedule: its optimizer makes its own "
                "rate; use no schedule, or relative_step=False and an lr"
            )
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _after_warmup(num_steps: int, num_warmup_steps: int, curve: Schedule) -> Schedule:
    """Join the warm-up to `curve`, which counts its steps from the warm-up's end."""
    _check_count("num_steps", num_steps, minimum=1)
    _check_count("num_warmup_steps", num_warmup_steps, minimum=0)
    if num_warmup_steps > num_steps:
        raise ValueError(f"num_warmup_steps={num_warmup_steps} exceeds num_steps={num_steps}; shorten the warm-up")

    def schedule(step: int) -> float:
        assert step >= 0, f"step {step} lies before the first step, 0"
        if step < num_warmup_steps:
            return (step + 1) / num_warmup_steps
        return curve(step - num_warmup_steps)

    return schedule


def _falling(shape: Callable[[float], float], num_steps: int, num_warmup_steps: int, final_factor: float) -> Schedule:
    """Stretch `shape`, which takes [0, 1] to [1, 0], over the steps after the warm-up and down to `final_factor`."""
    if not 0 <= final_factor <= 1:
        raise ValueError(f"final_factor={final_factor} must lie in [0, 1]; it is the part of the rate left at the end")

    def curve(step: int) -> float:
        # Holding the end apart also keeps a run that is all warm-up from dividing by zero.
        if step >= num_steps - num_warmup_steps:
            return final_factor
        return final_factor + (1 - final_factor) * shape(step / (num_steps - num_warmup_steps))

    return _after_warmup(num_steps, num_warmup_steps, curve)


def _check_count(name: str, value: int, minimum: int) -> None:
    if not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}={value!r} must be a whole number, {minimum} or more")
