"""What was logged to a run and is not in its store yet: JSON lines in the run directory, so that no kill loses it.

A tracker that sends later writes each call here at once, and cuts the lines off when the store has taken them. The file
is locked as long as its process lives, and removed when all of it has been sent. One that is found without a lock holds
what a process left behind, to be replayed into a tracker.
"""

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from components.files.locks import Unlockable, is_same_file, release_lock, take_lock
from pipelines.errors import PodiumError
from pipelines.records import Record
from pipelines.tracking.place import TrackingPlace
from pipelines.tracking.tracker import STATUSES

UNSENT = "unsent.jsonl"
ANY_UNSENT = "unsent*.jsonl"
_WAIT_SECONDS = 60.0
_log = logging.getLogger(__name__)

Value = Annotated[float | str, AfterValidator(float)]


@dataclass(frozen=True, kw_only=True)
class Opening(Record):
    """Who wrote the lines that follow."""

    place: TrackingPlace
    file: str
    """The journal's own path: in a copy of the run directory it is another one."""
    keeps_end: bool = False
    """Whether it only added to a run that had ended."""


@dataclass(frozen=True, kw_only=True)
class Line(Record):
    """One call of a tracker, for the run itself (`run` is "") or a nested one; or a note on the file."""

    run: str = ""
    time: int = 0
    """Milliseconds since 1970; 0 in notes on the file."""
    step: int | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    content: str = ""
    artifact: str | None = None
    """Relative to the run directory where it lies inside."""
    folder: str = ""
    data: str | None = None
    digest: str = ""
    path: str = ""
    started: int | None = None
    """When a nested run of another machine began."""
    end: str | None = None
    """The status with which the run ended."""
    opened: Opening | None = None
    sent: int | None = None
    """So many bytes from the beginning of the file need not be sent any more."""


class Journal:
    """The open file. It takes lines from one thread while another one marks what has been sent."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.left: list[Line] = []
        self.changed_ms = 0
        self.opening: Opening | None = None
        self.is_paused = False
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._size = 0
        self._head = b""
        self._has_warned = False
        if descriptor is not None:
            self._read(descriptor)

    @classmethod
    def take(cls, path: Path) -> "Journal | None":
        """What a process left behind; None where one that lives is writing it, or where nobody can tell."""
        try:
            descriptor = take_lock(path, wait=False)
        except OSError:
            return None
        return None if descriptor is None else cls(path, descriptor)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """The journal of this process. Without the run's directory, or a disk that takes it, it keeps nothing."""
        journal = cls(path, None)
        if path.parent.parent.is_dir():
            try:
                journal = cls(*_open(path))
            except OSError as error:
                journal._warn(error)
        return journal

    @property
    def size(self) -> int:
        """The length of the file: everything logged before was written into it before."""
        return self._size

    def begin(self, opening: Opening) -> None:
        """Say whose lines follow."""
        self.opening = opening
        self._head = _as_bytes(Line(opened=opening))
        self._append(self._head)

    def add(self, line: Line) -> None:
        """Write one call down. Costs microseconds; a disk that does not take it is named once, as a warning."""
        if not self.is_paused:
            self._append(_as_bytes(line))

    def mark_sent(self, size: int) -> None:
        """Cut off what is in the store: all but what was added since the file had this size."""
        with self._lock:
            if self._descriptor is None or self._size == len(self._head):
                return
            if size < self._size:
                content = _as_bytes(Line(sent=size))
            else:
                os.ftruncate(self._descriptor, 0)
                self._size, content = 0, self._head
            self._write(self._descriptor, content)

    def count_left(self) -> int:
        """How many calls the store has not taken."""
        with self._lock:
            content = b"" if self._descriptor is None else _read_all(self._descriptor)
        return sum(line.opened is None for line in _left_of(content, self.path))

    def close(self, *, is_all_sent: bool) -> None:
        """Give the file up, and remove it where nothing in it is needed any more."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if is_all_sent and is_same_file(descriptor, self.path):
                self.path.unlink()
                self.path.parent.rmdir()  # if nothing else is in it
        release_lock(self.path, descriptor, remove=False)

    def _read(self, descriptor: int) -> None:
        self.changed_ms = os.fstat(descriptor).st_mtime_ns // 1_000_000
        content = _read_all(descriptor)
        self._size = content.rfind(b"\n") + 1
        os.ftruncate(descriptor, self._size)  # a kill may have torn the last line
        lines = _left_of(content, self.path, self.changed_ms)
        openings = [number for number, line in enumerate(lines) if line.opened is not None]
        if openings:
            self.opening = lines[openings[-1]].opened
            self._head = _as_bytes(Line(opened=self.opening))
        # What was said of an end before the run went on counts no more.
        last = openings[-1] if openings else 0
        self.left = [
            line
            for number, line in enumerate(lines)
            if line.opened is None and (line.end is None or number > last or not openings)
        ]

    def _append(self, content: bytes) -> None:
        with self._lock:
            if self._descriptor is not None:
                self._write(self._descriptor, content)

    def _write(self, descriptor: int, content: bytes) -> None:
        """The whole of it or nothing."""
        written = 0
        try:
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], self._size + written)
            self._size += written
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, self._size)
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            _log.warning(
                "%s cannot be written, the training goes on, and a kill would lose what was not yet sent: %s",
                self.path,
                error.strerror or error,
            )
        self._has_warned = True


def _open(path: Path) -> tuple[Path, int]:
    """The file, locked; one of another name where somebody else does not let go of it.

    Whoever holds it sends what an earlier process of this run left, and has done soon.
    """
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = take_lock(path, wait=False)
        except Unlockable:
            return path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the empty folder was removed meanwhile
        if descriptor is not None:
            return path, descriptor
        if time.monotonic() > until:
            path = beside(path)
        time.sleep(0.05)


def beside(path: Path) -> Path:
    """A journal of another name for the same run."""
    return path.with_name(f"{Path(UNSENT).stem}-{secrets.token_hex(4)}.jsonl")


def _read_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _as_bytes(line: Line) -> bytes:
    return line.line().encode() + b"\n"


def _left_of(content: bytes, path: Path, changed_ms: int = 0) -> list[Line]:
    """The lines after the last that were marked as sent. A torn or damaged one is passed over."""
    found: list[tuple[int, Line]] = []
    start = 0
    for raw in content.split(b"\n")[:-1]:
        try:
            for line in _parse(raw, path, changed_ms):
                if line.sent is None:
                    found.append((start, line))
                else:
                    found = [(place, kept) for place, kept in found if place >= line.sent or kept.opened is not None]
        except (ValueError, TypeError, KeyError, PodiumError) as error:
            _log.warning("%s: a line is damaged and passed over (%s)", path, error)
        start += len(raw) + 1
    return [line for _, line in found]


def _parse(raw: bytes, path: Path, changed_ms: int) -> list[Line]:
    line = Line.parse(raw, path)
    if line.end is not None and line.end not in STATUSES:
        raise ValueError(f"end: {line.end} is no status")
    is_of_today = line.time > 0 or line.opened is not None or line.sent is not None
    return [line] if is_of_today else _read_former(line, json.loads(raw), path.parent.parent.name, changed_ms)


def _read_former(line: Line, content: Mapping[str, Any], run: str, time_ms: int) -> list[Line]:
    """A request that the version before could not send and only described: texts and data cannot be sent any more."""
    # A run was named by its experiment and its directory, a nested one by its fold.
    line = replace(line, run="" if line.run.endswith(run) else line.run, time=time_ms, text=None, data=None)
    points = [
        replace(line, time=time, step=step or None, values={key: float(value)})
        for time, step, key, value in content.get("metrics", ())
    ]
    status = content.get("status")
    ends = [replace(line, end=status)] if status in STATUSES else []
    return [*points, *ends] or ([line] if line.params or line.tags or line.artifact else [])
