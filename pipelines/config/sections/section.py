"""What all sections share: a name that stands in the experiment file, and frozen fields."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Section:
    """One choice of one section; `asdict` gives its fields without the name."""

    name: ClassVar[str]


RUN_PREFIX = "run:"
"""What a checkpoint begins with that is a run's, by the experiment or the run's id."""


def starts_from_run(section: Section) -> bool:
    """Whether a model's weights and vocabulary are those of another run."""
    checkpoint = getattr(section, "checkpoint", None)
    return isinstance(checkpoint, str) and checkpoint.startswith(RUN_PREFIX)
