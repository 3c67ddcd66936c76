"""What all sections share: a name that stands in the experiment file, and frozen fields."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Section:
    """One choice of one section; `asdict` gives its fields without the name."""

    name: ClassVar[str]
