"""Range checks and the words of their refusals: the field first, then its value, then what works."""

import math
from collections.abc import Collection, Iterable

from components.nearest import did_you_mean as did_you_mean


def shown(value: object) -> str:
    """A value as an experiment file would spell it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def at_least(section: object, minimum: float, *fields: str) -> None:
    """Each of the fields is null or a finite number >= minimum."""
    for field, value in _numbers(section, fields):
        if not minimum <= value < math.inf:
            raise ValueError(f"{field}: {value!r} is too small; needs {minimum} or more")


def at_most(section: object, maximum: float, *fields: str) -> None:
    """Each of the fields is null or a number <= maximum."""
    for field, value in _numbers(section, fields):
        if not value <= maximum:
            raise ValueError(f"{field}: {value!r} is too large; needs {maximum} or less")


def above(section: object, bound: float, *fields: str) -> None:
    """Each of the fields is null or a finite number > bound."""
    for field, value in _numbers(section, fields):
        if not bound < value < math.inf:
            raise ValueError(f"{field}: {value!r} is out of range; needs a finite number above {bound}")


def share(section: object, *fields: str) -> None:
    """Each of the fields is null or in [0, 1)."""
    for field, value in _numbers(section, fields):
        if not 0 <= value < 1:
            raise ValueError(f"{field}: {value!r} is out of range; needs 0 or more and less than 1")


def one_of(section: object, field: str, allowed: Collection[str]) -> None:
    """The field holds one of the allowed words."""
    value = getattr(section, field)
    if value not in allowed:
        hint = did_you_mean(value, allowed, f"needs one of {', '.join(allowed)}")
        raise ValueError(f"{field}: {value!r} is not known{hint}")


def _numbers(section: object, fields: Iterable[str]) -> Iterable[tuple[str, float]]:
    return [(field, getattr(section, field)) for field in fields if getattr(section, field) is not None]
