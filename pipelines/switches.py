"""Switches of the command line that are set like variables, as in `make experiment SMOKE=1`."""

from collections.abc import Mapping

from pipelines.errors import PodiumError

_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


def is_on(name: str, environment: Mapping[str, str]) -> bool:
    """Whether the variable `name` is on; off where it is absent or empty.

    Raises:
        PodiumError: For a value that says neither.
    """
    value = environment.get(name, "")
    word = value.strip().lower()
    if word not in (*_ON, *_OFF):
        raise PodiumError(f"{name}={value}: is neither on nor off; write {name}=1 (true, yes, on) or {name}=0")
    return word in _ON
