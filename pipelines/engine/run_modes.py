"""The modes of a run: a real one, or a try of the experiment with SMOKE=1 or OVERFIT=1.

An experiment's name means a real run wherever a run is wanted. The others are addressed by their ids only, and are
named for what they are wherever they are used.
"""

from collections.abc import Mapping

from pipelines.errors import PodiumError

REAL, SMOKE, OVERFIT = "real", "smoke", "overfit"
_NAMES = {SMOKE: "a smoke run", OVERFIT: "an overfit run"}
_WARNINGS = {
    SMOKE: "a smoke run: a few steps over a few rows, whose scores and predictions say nothing",
    OVERFIT: "an overfit run: one batch learned by heart and scored on its own training rows, so that its scores and "
    "predictions say nothing",
}


def read_mode(record: Mapping[str, object]) -> str:
    """The mode that run.json says: REAL where `mode` is null or missing, as in records of before it was written.

    Raises `PodiumError` for any other word: nobody knows what such a run is.
    """
    mode = record.get("mode")
    if mode is None:
        return REAL
    if isinstance(mode, str) and mode in _NAMES:
        return mode
    raise PodiumError(f"mode: {mode!r}: no such mode; it is null, {SMOKE} or {OVERFIT}")


def name_mode(mode: str) -> str:
    """ "a smoke run" or "an overfit run"; "" for a real one, which needs no words."""
    return _NAMES.get(mode, "")


def warn_of_mode(mode: str) -> str:
    """The same with a reason not to rely on the run; "" for a real one."""
    return _WARNINGS.get(mode, "")
