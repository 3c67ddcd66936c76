"""The modes of a run: a real one, or a try of the experiment with SMOKE=1 or OVERFIT=1.

An experiment's name means a real run wherever a run is wanted. The others are addressed by their ids only, and are
named for what they are wherever they are used.
"""

import os
from collections.abc import Mapping

from pipelines.errors import PodiumError

REAL, SMOKE, OVERFIT = "real", "smoke", "overfit"
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")
_NAMES = {SMOKE: "a smoke run", OVERFIT: "an overfit run"}
_WARNINGS = {
    SMOKE: "a smoke run: a few steps over a few rows, whose scores and predictions say nothing",
    OVERFIT: "an overfit run: one batch learned by heart and scored on its own training rows, so that its scores and "
    "predictions say nothing",
}


def check_mode(value: object) -> str:
    """SMOKE or OVERFIT, as records write it. Raises ValueError for any other value: nobody knows what such a run is."""
    if isinstance(value, str) and value in _NAMES:
        return value
    raise ValueError(f"{value!r}: no such mode; it is null, {SMOKE} or {OVERFIT}")


def name_mode(mode: str) -> str:
    """ "a smoke run" or "an overfit run"; "" for a real one, which needs no words."""
    return _NAMES.get(mode, "")


def warn_of_mode(mode: str) -> str:
    """The same with a reason not to rely on the run; "" for a real one."""
    return _WARNINGS.get(mode, "")


def is_on(name: str, environment: Mapping[str, str]) -> bool:
    """Whether the variable `name` is on, as in `make experiment SMOKE=1`; off where it is absent or empty.

    Raises:
        PodiumError: For a value that says neither.
    """
    value = environment.get(name, "")
    word = value.strip().lower()
    if word not in (*_ON, *_OFF):
        raise PodiumError(f"{name}={value}: is neither on nor off; write {name}=1 (true, yes, on) or {name}=0")
    return word in _ON


def chosen_mode(environment: Mapping[str, str] = os.environ) -> str | None:
    """The mode that SMOKE or OVERFIT asks for; None for a real run. Raises PodiumError where both do."""
    chosen = [mode for mode in (SMOKE, OVERFIT) if is_on(mode.upper(), environment)]
    if len(chosen) > 1:
        raise PodiumError("SMOKE and OVERFIT are both set; choose one")
    return chosen[0] if chosen else None
