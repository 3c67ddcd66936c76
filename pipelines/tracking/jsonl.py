"""Tracking on machines without MLflow: JSON lines in the run directory, and their import into any other tracker.

Layout, `tracking/` for the run and `tracking/<child>/` for each nested one:
metrics.jsonl  {"time": ms, "step": n or null, "values": {key: number}}, one line per call
events.jsonl   {"time": ms, "event": "started" | "resumed" | "artifact" | "data" | "finished", ...}
params.json, tags.json, artifacts/ (texts, and files from outside the run directory)
"""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from components.files.atomic import atomic_file
from pipelines.redaction import cleaned, without_secrets
from pipelines.tracking.place import Backend
from pipelines.tracking.recorded import EVENTS, METRICS, RecordedRun, read_lines, read_run, to_json
from pipelines.tracking.system_metrics import SYSTEM_PREFIX, SYSTEM_SECONDS, SystemSampler
from pipelines.tracking.tracker import (
    DatedTracker,
    LoggedBefore,
    TimedTracker,
    Tracker,
    check_status,
    now_ms,
    split_params,
)

TRACKING_FOLDER = "tracking"
_ARTIFACTS = "artifacts"
_log = logging.getLogger(__name__)


class JsonlTracker:
    """Writes each call at once, unbuffered: a line costs about 10 µs and survives `kill -9`.

    A full disk or a vanished folder is reported once, as a warning, and never ends the training.
    """

    backend: Backend = Backend.JSONL
    num_unsent: int = 0
    _keeps_end = False

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        run_dir: Path,
        competition: str | None = None,
        parent: "JsonlTracker | None" = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._run_dir = run_dir
        self._parent = parent
        self._sampler: SystemSampler | None = None
        self._children: dict[str, JsonlTracker] = {}
        self._closed = False
        self._has_failed = False
        for file_name in (METRICS, EVENTS):
            _drop_torn_line(folder / file_name)
        for leftover in folder.glob("*.unfinished"):  # a kill of the version before left it
            leftover.unlink()
        recorded = read_run(folder) if read_lines(folder / EVENTS) else None
        self._before = LoggedBefore()
        for row in recorded.metrics if recorded else ():
            for key, value in row.values.items():
                self._before.note(key, row.step, value)
        self._params = dict(recorded.params) if recorded else {}
        self._tags = dict(recorded.tags) if recorded else {}
        self.run_id: str | None = recorded.run_id if recorded else uuid.uuid4().hex
        self._metrics_file = (folder / METRICS).open("ab", buffering=0)
        if recorded is None:
            self._log_event("started", run_id=self.run_id, name=name, competition=competition)
        elif not self._keeps_end:
            self._log_event("resumed")

    @property
    def uri(self) -> str | None:
        return str(self.folder)

    def log_params(self, params: Mapping[str, object]) -> None:
        params = cleaned(params)
        known = {key: str(value) for key, value in self._params.items()}
        fresh, changed = split_params(known, {key: str(value) for key, value in params.items()})
        self._params.update({key: params[key] for key in fresh})
        self._guarded(lambda: _replace_json(self.folder / "params.json", self._params))
        if changed:
            self.log_tags(changed)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.log_metrics_at(values, step, now_ms())
        (self._parent or self)._log_system_metrics()

    def log_with_system_metrics(self, seconds: float = SYSTEM_SECONDS) -> None:
        """Read the machine's figures whenever a value is logged, here or in a child, and a reading is due."""
        self._sampler = SystemSampler(first_step=self._before.next_step(SYSTEM_PREFIX), seconds=seconds)

    def log_metrics_at(self, values: Mapping[str, float], step: int | None, time_ms: int) -> None:
        fresh = self._before.new_values({key: float(value) for key, value in values.items()}, step, time_ms)
        if fresh:
            row = {"time": time_ms, "step": step, "values": {key: to_json(value) for key, value in fresh.items()}}
            line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
            self._guarded(lambda: self._metrics_file.write(line))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._tags.update(cleaned(tags))
        self._guarded(lambda: _replace_json(self.folder / "tags.json", self._tags))

    def log_text(self, text: str, name: str) -> None:
        target = self.folder / _ARTIFACTS / name

        def write() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(without_secrets(text), encoding="utf-8")
            self._log_artifact_event(target, str(Path(name).parent))

        self._guarded(write)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        path = path.resolve()
        if path.is_relative_to(self._run_dir.resolve()):
            # It travels with the run directory; a copy would double what a kernel has to save.
            self._guarded(lambda: self._log_artifact_event(path, folder))
            return
        target = self.folder / _ARTIFACTS / folder / path.name

        def copy() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            _ = shutil.copytree(path, target, dirs_exist_ok=True) if path.is_dir() else shutil.copy2(path, target)
            self._log_artifact_event(target, folder)

        self._guarded(copy)

    def log_data(self, name: str, digest: str, path: Path) -> None:
        self._guarded(lambda: self._log_event("data", name=name, digest=digest, path=str(path)))

    def child(self, name: str) -> Tracker:
        if name == _ARTIFACTS or Path(name).name != name:
            raise ValueError(f"child {name!r}: a nested run is named by one plain word other than {_ARTIFACTS!r}")
        if name not in self._children:
            self._children[name] = type(self)(self.folder / name, name=name, run_dir=self._run_dir, parent=self)
        return self._children[name]

    def flush(self) -> None:
        """Push the lines from the system's cache to the disk, which only matters when the machine itself dies."""
        if not self._closed:
            self._guarded(lambda: os.fsync(self._metrics_file.fileno()))
        for tracker in self._children.values():
            tracker.flush()

    def finish(self, status: str) -> None:
        check_status(status)
        if self._closed:
            return
        self.flush()
        for tracker in self._children.values():
            tracker.finish(status)
        self._guarded(lambda: self._log_event("finished", status=status))
        self._metrics_file.close()
        self._closed = True

    def _log_system_metrics(self) -> None:
        if self._sampler is not None:
            try:
                self._sampler.log_if_due(lambda figures, number: self.log_metrics_at(figures, number, now_ms()))
            except Exception as error:  # a driver's or psutil's own: not worth a training
                _log.warning("no more system metrics: %s", error)
                self._sampler = None

    def _log_event(self, event: str, **content: object) -> None:
        line = json.dumps({"time": now_ms(), "event": event, **content}).encode() + b"\n"
        with (self.folder / EVENTS).open("ab", buffering=0) as file:
            file.write(line)

    def _log_artifact_event(self, path: Path, folder: str) -> None:
        place = os.path.relpath(path, self.folder.resolve())
        self._log_event("artifact", path=Path(place).as_posix(), folder="" if folder == "." else folder)

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except (OSError, ValueError) as error:
            if not self._has_failed:
                _log.warning("tracking in %s failed, the training goes on: %s", self.folder, error)
            self._has_failed = True


class ReopenedJsonlTracker(JsonlTracker):
    """Adds to a run that has ended and leaves its end as it was."""

    _keeps_end = True

    def finish(self, status: str) -> None:
        check_status(status)
        self.flush()


def open_jsonl_tracker(
    run_dir: Path, *, competition: str | None = None, run_name: str = "", reopen: bool = False
) -> JsonlTracker:
    """The tracker that writes to `run_dir/tracking`; a run recorded there already is continued."""
    tracker_class = ReopenedJsonlTracker if reopen else JsonlTracker
    folder = run_dir / TRACKING_FOLDER
    return tracker_class(folder, name=run_name or run_dir.name, run_dir=run_dir, competition=competition)


def import_jsonl_run(folder: Path, tracker: Tracker) -> RecordedRun:
    """Replay the run recorded in `folder` into `tracker`, with its times where the backend takes them.

    Children are finished as they were (KILLED where nothing says how); the run itself stays open for its caller, who
    ends it with `finish_import`. Files that were not brought along are named in the tag `import.missing`.
    Raises PodiumError as `read_run` does, and for an artifact that lies outside the run directory around `folder`.
    """
    run = read_run(folder, run_dir=folder.parent)
    _replay(run, tracker)
    tracker.log_tags({"import.run_id": run.run_id})
    return run


def _replay(run: RecordedRun, tracker: Tracker) -> None:
    tracker.log_params(run.params)
    tracker.log_tags(run.tags)
    for name, digest, path in run.data:
        tracker.log_data(name, digest, path)
    for row in run.metrics:
        if isinstance(tracker, TimedTracker):
            tracker.log_metrics_at(row.values, row.step, row.time_ms)
        else:
            tracker.log_metrics(row.values, row.step)
    # One entry for each place: a resumed run logs its texts again.
    artifacts = dict.fromkeys(run.artifacts)
    for path, inner_folder in artifacts:
        if path.exists():
            tracker.log_artifact(path, inner_folder)
    missing = [path.name for path, _ in artifacts if not path.exists()]
    if missing:
        tracker.log_tags({"import.missing": ", ".join(missing)})
    for name, child in run.children.items():
        nested = tracker.child(name, child.started_ms) if isinstance(tracker, DatedTracker) else tracker.child(name)
        _replay(child, nested)
        finish_import(child, nested)


def finish_import(run: RecordedRun, tracker: Tracker) -> None:
    """End an imported run as it was, and when it was where the backend takes that."""
    status = run.status or "KILLED"
    if isinstance(tracker, DatedTracker):
        tracker.finish_at(status, run.ended_ms)
    else:
        tracker.finish(status)


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _replace_json(path: Path, content: Mapping[str, object]) -> None:
    if not path.parent.is_dir():  # of a run that was deleted no stump is to come back
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
