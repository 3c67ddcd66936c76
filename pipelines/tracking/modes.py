"""What a tracker is told of a smoke or overfit run: everything, but its scores never under the names of real scores.

A table of runs that is sorted by `cv/<metric>` would otherwise show the run on top that was scored on its own training
rows. Curves keep their names, so that they can be laid over a real run's; the tag `mode` tells them apart.
"""

from collections.abc import Mapping
from pathlib import Path

from pipelines.modes import REAL
from pipelines.tracking.place import Backend
from pipelines.tracking.tracker import DatedTracker, TimedTracker, Tracker

SCORES = ("cv/", "oof/", "lb/")


def for_mode(tracker: Tracker, mode: str) -> Tracker:
    """The tracker of a run of this mode: itself for a real one."""
    return tracker if mode == REAL else ModeTracker(tracker, mode)


def name_tracked(name: str, mode: str) -> str:
    """The run's name with its mode before it, "smoke mt5_adafactor 2026…", unless it stands there already."""
    return name if mode == REAL or name.startswith(f"{mode} ") else f"{mode} {name}"


class ModeTracker:
    """Hands all on to the tracker of a run, with scores under `<mode>/`: `smoke/cv/exact_match`, `smoke/lb/public`."""

    def __init__(self, tracker: Tracker, mode: str) -> None:
        self._tracker = tracker
        self._mode = mode

    @property
    def run_id(self) -> str | None:
        return self._tracker.run_id

    @property
    def backend(self) -> Backend:
        return self._tracker.backend

    @property
    def uri(self) -> str | None:
        return self._tracker.uri

    @property
    def num_unsent(self) -> int:
        return self._tracker.num_unsent

    def log_params(self, params: Mapping[str, object]) -> None:
        self._tracker.log_params(params)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._tracker.log_metrics(self._renamed(values, step), step)

    def log_metrics_at(self, values: Mapping[str, float], step: int | None, time_ms: int) -> None:
        """At a past time, where the tracker behind takes one."""
        if isinstance(self._tracker, TimedTracker):
            self._tracker.log_metrics_at(self._renamed(values, step), step, time_ms)
        else:
            self.log_metrics(values, step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._tracker.log_tags(tags)

    def log_text(self, text: str, name: str) -> None:
        self._tracker.log_text(text, name)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._tracker.log_artifact(path, folder)

    def log_data(self, name: str, digest: str, path: Path) -> None:
        self._tracker.log_data(name, digest, path)

    def child(self, name: str, started_ms: int | None = None) -> Tracker:
        """A fold's own run, tagged as this one.

        JSON lines name its folder by the fold; MLflow names the run "smoke fold0", and its curves on the run above
        still by the fold, so that they lie over a real run's.
        """
        name = name if self.backend is Backend.JSONL else name_tracked(name, self._mode)
        if started_ms is not None and isinstance(self._tracker, DatedTracker):
            inner = self._tracker.child(name, started_ms)
        else:
            inner = self._tracker.child(name)
        inner.log_tags({"mode": self._mode})
        return ModeTracker(inner, self._mode)

    def flush(self) -> None:
        self._tracker.flush()

    def finish(self, status: str) -> None:
        self._tracker.finish(status)

    def finish_at(self, status: str, ended_ms: int) -> None:
        """At a past time, where the tracker behind takes one."""
        if isinstance(self._tracker, DatedTracker):
            self._tracker.finish_at(status, ended_ms)
        else:
            self._tracker.finish(status)

    def _renamed(self, values: Mapping[str, float], step: int | None) -> dict[str, float]:
        """A fold's own run holds its scores without a prefix and without a step."""
        return {
            f"{self._mode}/{key}" if key.startswith(SCORES) or (step is None and "/" not in key) else key: value
            for key, value in values.items()
        }
