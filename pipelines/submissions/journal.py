"""Submissions on their way: what is being sent is written down before it is sent, and struck out when all is recorded.

`runs/.unsettled/<id>.json` is an intent. Its process holds a lock as long as it lives, so that one without a lock was
abandoned: by a kill, by a disk that was full, or because the tracker could not be told. `writer` goes on from there.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from components.files.locks import Unlockable, one_at_a_time, release_lock, take_lock
from pipelines.addresses import RecordedVersion
from pipelines.records import DamagedRecord, Name, Record, Time
from pipelines.runs.submission import Host, SentDigest, Submission
from pipelines.workspace import Workspace


class Stage(StrEnum):
    """How far it is: not sent to anybody, on its way to Kaggle, or what the host says of it."""

    CHOSEN = "CHOSEN"
    SENDING = "SENDING"
    PENDING = "PENDING"
    COMPLETE = "COMPLETE"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class Intent(Record):
    """What is sent, for which run (its folder below runs/), and the host's number once there is one.

    `last_ref` is the newest number that Kaggle had given before.
    """

    status: Stage = Stage.CHOSEN
    time: Time
    process: int
    run: str
    host: Host
    competition: Name
    sha256: SentDigest
    description: str = ""
    kernel: RecordedVersion | None = None
    is_code: bool = False
    ref: NonNegativeInt | None = None
    last_ref: int | None = None

    @property
    def was_sent(self) -> bool:
        """Whether Kaggle may have it."""
        return self.status is not Stage.CHOSEN

    def is_about(self, submission: Submission) -> bool:
        """Whether it is this one: by number, or where a kill came before there was one by what was sent."""
        if submission.host != self.host:
            return False
        if self.ref is not None:
            return submission.ref == self.ref
        what = (submission.sha256, submission.description, submission.kernel)
        if what != (self.sha256, self.description, self.kernel):
            return False
        if self.host is Host.KAGGLE:
            # A time would not do: the same may have been sent before within the same second.
            return self.last_ref is not None and submission.ref > self.last_ref
        return submission.time >= self.time


class OpenIntent:
    """An intent in its file, held by this process."""

    def __init__(self, path: Path, intent: Intent) -> None:
        self._path = path
        self.intent = intent

    def note(self, **changes: Any) -> None:  # noqa: ANN401 - fields of an intent
        """Write down more of it. Raises OSError where the disk does not take it."""
        self.intent = replace(self.intent, **changes)
        self.intent.write(self._path)

    def strike(self) -> None:
        """Nothing of it is left to do."""
        self._path.unlink(missing_ok=True)


class Journal:
    """The intents of one checkout."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.runs / ".unsettled"

    @contextmanager
    def settling(self, *, wait: bool = True) -> Iterator[bool]:
        """Within the block no other process settles what was abandoned; False where one does and `wait` is False."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "settling.lock"
        if wait:
            with one_at_a_time(path):
                yield True
            return
        descriptor = _lock(path)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                release_lock(path, descriptor)

    def choosing(self) -> AbstractContextManager[None]:
        """Within the block no other process decides whether to send something."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return one_at_a_time(self.folder / "choosing.lock")

    @contextmanager
    def begun(self, **facts: Any) -> Iterator[OpenIntent]:  # noqa: ANN401 - fields of an intent
        """An intent that this process holds within the block. It outlives the block unless it is struck out there.

        Raises OSError where the disk does not take it: better before something is sent than after.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}.json"
        descriptor = _lock(_lock_file(path))
        try:
            facts.setdefault("time", datetime.now(UTC).isoformat(timespec="seconds"))
            opened = OpenIntent(path, Intent(process=os.getpid(), **facts))
            opened.note()
            yield opened
        finally:
            if descriptor is not None:
                release_lock(_lock_file(path), descriptor)

    def others(self) -> list[Intent]:
        """The intents of processes that are at work now."""
        found = []
        for path in self._paths():
            descriptor = _lock(_lock_file(path))
            if descriptor is None:
                found += [opened.intent] if (opened := _read(path)) else []
            else:
                release_lock(_lock_file(path), descriptor)
        return found

    @contextmanager
    def abandoned(self) -> Iterator[list[OpenIntent]]:
        """The intents that nobody holds, oldest first; they are this process's within the block."""
        held, intents = [], []
        # A kill before an intent is written, or after it is struck out, leaves its lock alone; releasing removes it.
        locked = {path.with_suffix(".json") for path in self.folder.glob("*.lock")}
        try:
            for path in sorted(locked.union(self._paths())):
                descriptor = _lock(_lock_file(path))
                if descriptor is not None:
                    held.append((path, descriptor))
                    intents += [opened] if (opened := _read(path)) else []
            yield sorted(intents, key=lambda opened: opened.intent.time)
        finally:
            for path, descriptor in held:
                release_lock(_lock_file(path), descriptor)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))


def _lock_file(path: Path) -> Path:
    return path.with_suffix(".lock")


def _lock(path: Path) -> int | None:
    """The descriptor of the lock; None where another process holds it, or where there are no locks."""
    try:
        return take_lock(path, wait=False)
    except Unlockable:
        return None


def _read(path: Path) -> OpenIntent | None:
    """An intent that was struck out meanwhile is none."""
    try:
        return OpenIntent(path, Intent.read(path))
    except DamagedRecord:
        return None
