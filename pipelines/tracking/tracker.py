"""What a training may ask of an experiment tracker, and the tracker that keeps nothing.

Training knows this module only: it is handed a `Tracker` and never learns which one it is, so that training runs
unchanged inside a kernel. Opening one is the caller's business (`pipelines.tracking.opening`).

Names that every caller uses, so that all runs can be compared:
metrics  train/loss, train/lr, valid/loss, valid/<metric>, cv/<metric>, oof/<metric>, lb/public, lb/private, time/...;
tags     commit, branch, source, user, note (each backend knows its own name for these), dirty, stage, ...;
texts    config.yaml, git.diff, versions.txt.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from pipelines.tracking.place import Backend, TrackingPlace

STATUSES = ("FINISHED", "FAILED", "KILLED")


class Tracker(Protocol):
    """One run. No method waits for disk or network except `flush` and the root's `finish`; none raises for them."""

    @property
    def run_id(self) -> str | None:
        """The backend's name of this run; None where it has none (yet)."""

    @property
    def backend(self) -> Backend:
        """What `reopen_tracker` needs to find the run again."""

    @property
    def uri(self) -> str | None:
        """Where the run is kept: a tracking URI (without credentials) or a folder."""

    @property
    def num_unsent(self) -> int:
        """How many calls wait to be sent by a later command; known after `finish`."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Flat, dotted keys, once per run. After a resume equal values are skipped and changed ones become tags."""

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Points of curves, or with no step a run's summary values. Costs microseconds."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Words to search by; the last value counts."""

    def log_text(self, text: str, name: str) -> None:
        """A small text file, e.g. the configuration or the uncommitted changes."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder, which must stay as it is until `flush` or `finish`."""

    def log_data(self, name: str, digest: str, path: Path) -> None:
        """Which data went in: the digest tells whether two runs saw the same."""

    def child(self, name: str) -> "Tracker":
        """A run nested in this one, e.g. fold0. The same name is the same run, also after a resume."""

    def flush(self) -> None:
        """Wait until what was logged is stored, or could not be."""

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED. The root's finish flushes and ends children that are still open."""


@runtime_checkable
class TimedTracker(Protocol):
    """A tracker that can also store values under a past time, which an import needs."""

    def log_metrics_at(self, values: Mapping[str, float], step: int | None, time_ms: int) -> None:
        """As `log_metrics`, measured at `time_ms` (milliseconds since 1970)."""


@runtime_checkable
class DatedTracker(Protocol):
    """A tracker whose runs can have begun and ended at a past time (milliseconds since 1970)."""

    def child(self, name: str, started_ms: int | None = None) -> Tracker:
        """A nested run; the time counts where it is a new one."""

    def finish_at(self, status: str, ended_ms: int) -> None:
        """As `finish`, at a past time."""


class NullTracker:
    """Keeps nothing: for tests, for `tracking.name: none` and for the processes that are not the main one."""

    run_id: str | None = None
    backend: Backend = Backend.NONE
    uri: str | None = None
    num_unsent: int = 0

    def log_params(self, params: Mapping[str, object]) -> None:
        pass

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def log_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def log_text(self, text: str, name: str) -> None:
        pass

    def log_artifact(self, path: Path, folder: str = "") -> None:
        pass

    def log_data(self, name: str, digest: str, path: Path) -> None:
        pass

    def child(self, name: str) -> Tracker:
        return self

    def flush(self) -> None:
        pass

    def finish(self, status: str) -> None:
        check_status(status)


class LoggedBefore:
    """What a resumed run holds already, so that the steps it repeats after its checkpoint are not stored twice."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float, int]] = {}

    def note(self, key: str, step: int | None, value: float, time_ms: int = 0) -> None:
        """Take in one stored value, the newest last, with its time where that is to count."""
        step = step or 0
        if key not in self._last or step >= self._last[key][0]:
            self._last[key] = (step, value, time_ms)

    def new_values(self, values: Mapping[str, float], step: int | None, time_ms: int) -> dict[str, float]:
        """The values worth storing: later steps of each curve, and summary values that changed since."""
        return {key: value for key, value in values.items() if self._is_new(key, step, value, time_ms)}

    def next_step(self, prefix: str) -> int:
        """One more than the last step of the curves whose keys begin so."""
        return max((step + 1 for key, (step, _, _) in self._last.items() if key.startswith(prefix)), default=0)

    def _is_new(self, key: str, step: int | None, value: float, time_ms: int) -> bool:
        if key not in self._last:
            return True
        last_step, last_value, last_ms = self._last[key]
        return (value != last_value and time_ms >= last_ms) if step is None else step > last_step


def split_params(known: Mapping[str, str], params: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters not logged yet, and, as tags, those whose logged value differs (no backend lets a value change)."""
    fresh = {key: value for key, value in params.items() if key not in known}
    changed = {f"param_changed/{key}": value for key, value in params.items() if known.get(key, value) != value}
    return fresh, changed


def check_status(status: str) -> None:
    assert status in STATUSES, f"status is one of {STATUSES}, not {status!r}"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def tracking_record(tracker: Tracker) -> TrackingPlace:
    """What run.json keeps under `tracking`, and `reopen_tracker` reads."""
    return TrackingPlace(backend=tracker.backend, run_id=tracker.run_id, uri=tracker.uri)
