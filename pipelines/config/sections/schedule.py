"""The shapes of the learning rate over a run, as factors of the optimizer's peak rate, and what builds them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import at_least
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from components.optim.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Constant(Section):
    """The peak rate to the end."""

    name: ClassVar[str] = "constant"

    num_warmup_steps: int = 0
    """Steps of linear rise to the peak."""

    def __post_init__(self) -> None:
        at_least(self, 0, "num_warmup_steps")


@dataclass(frozen=True, kw_only=True)
class Linear(Section):
    """A straight line down from the peak."""

    name: ClassVar[str] = "linear"

    num_warmup_steps: int = 0
    """Steps of linear rise to the peak."""
    final_factor: float = 0.0
    """Share of the peak at the end of the run."""

    def __post_init__(self) -> None:
        _check_decay(self)


@dataclass(frozen=True, kw_only=True)
class Cosine(Section):
    """Half a cosine down from the peak: slow, fast, slow."""

    name: ClassVar[str] = "cosine"

    num_warmup_steps: int = 0
    """Steps of linear rise to the peak."""
    final_factor: float = 0.0
    """Share of the peak at the end of the run."""

    def __post_init__(self) -> None:
        _check_decay(self)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Section):
    """One over the square root of the step, which needs no end in sight: T5's pre-training."""

    name: ClassVar[str] = "inverse_sqrt"

    num_warmup_steps: int = 0
    """Steps of linear rise to the peak."""
    time_scale: int = 1000
    """How slowly it falls: the rate is halved 3 * time_scale steps after the rise."""

    def __post_init__(self) -> None:
        at_least(self, 0, "num_warmup_steps")
        at_least(self, 1, "time_scale")


def _check_decay(section: Linear | Cosine) -> None:
    at_least(section, 0, "num_warmup_steps")
    if not 0 <= section.final_factor <= 1:
        raise ValueError(f"final_factor: {section.final_factor} is out of range; needs 0 to 1")


def build_constant(num_steps: int, *, num_warmup_steps: int) -> "Schedule":
    from components.optim import schedules

    return schedules.build_constant(num_steps=num_steps, num_warmup_steps=num_warmup_steps)


def build_linear(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> "Schedule":
    from components.optim import schedules

    return schedules.build_linear(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_cosine(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> "Schedule":
    from components.optim import schedules

    return schedules.build_cosine(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_inverse_sqrt(num_steps: int, *, num_warmup_steps: int, time_scale: int) -> "Schedule":
    from components.optim import schedules

    return schedules.build_inverse_sqrt(num_steps=num_steps, num_warmup_steps=num_warmup_steps, time_scale=time_scale)
