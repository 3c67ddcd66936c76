"""Schedules from an experiment's fields: step -> factor of the peak rate, over a run of `num_steps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.optim.schedules import Schedule


def build_constant(num_steps: int, *, num_warmup_steps: int) -> Schedule:
    from components.optim import schedules

    return schedules.build_constant(num_steps=num_steps, num_warmup_steps=num_warmup_steps)


def build_linear(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> Schedule:
    from components.optim import schedules

    return schedules.build_linear(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_cosine(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> Schedule:
    from components.optim import schedules

    return schedules.build_cosine(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_inverse_sqrt(num_steps: int, *, num_warmup_steps: int, time_scale: int) -> Schedule:
    from components.optim import schedules

    return schedules.build_inverse_sqrt(num_steps=num_steps, num_warmup_steps=num_warmup_steps, time_scale=time_scale)
