"""How training rows are split; which columns hold groups or times is the competition's to say."""

from dataclasses import dataclass
from typing import ClassVar

from pipelines.config.checks import at_least
from pipelines.config.sections.section import Section


@dataclass(frozen=True, kw_only=True)
class Holdout(Section):
    """One fold of validation rows; the rest is always trained on."""

    name: ClassVar[str] = "holdout"
    num_folds: ClassVar[int] = 1

    valid_fraction: float = 0.05
    """Share of the rows that validate."""
    seed: int = 0
    """Seed of the split, apart from the experiment's, so that experiments share folds."""

    def __post_init__(self) -> None:
        at_least(self, 0, "seed")
        _check_fraction(self)


@dataclass(frozen=True, kw_only=True)
class KFold(Section):
    """Rows at random."""

    name: ClassVar[str] = "kfold"

    num_folds: int = 5
    """Parts; each validates once."""
    seed: int = 0
    """Seed of the split, apart from the experiment's, so that experiments share folds."""

    def __post_init__(self) -> None:
        at_least(self, 2, "num_folds")
        at_least(self, 0, "seed")


@dataclass(frozen=True, kw_only=True)
class Stratified(KFold):
    """Every fold has the classes in the shares of the whole."""

    name: ClassVar[str] = "stratified"


@dataclass(frozen=True, kw_only=True)
class Group(KFold):
    """Rows of one group stay in one fold."""

    name: ClassVar[str] = "group"


@dataclass(frozen=True, kw_only=True)
class StratifiedGroup(KFold):
    """Groups stay together, and the classes keep their shares as well as that allows."""

    name: ClassVar[str] = "stratified_group"


@dataclass(frozen=True, kw_only=True)
class Time(Section):
    """Train on the past, validate on what follows; the earliest part is only ever trained on."""

    name: ClassVar[str] = "time"

    num_folds: int = 5
    """Parts that validate."""
    valid_fraction: float = 0.1
    """With one fold: share of the rows, the latest, that validate."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_folds")
        _check_fraction(self)


def _check_fraction(section: Holdout | Time) -> None:
    if not 0 < section.valid_fraction < 1:
        raise ValueError(f"valid_fraction: {section.valid_fraction} is out of range; needs a number between 0 and 1")
