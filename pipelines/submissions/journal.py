"""Submissions on their way: what is being sent is written down before it is sent, and struck out when all is recorded.

`runs/.unsettled/<id>.json` is an intent. Its process holds a lock as long as it lives, so that one without a lock was
abandoned: by a kill, by a disk that was full, or because the tracker could not be told. `submission_settling` goes on
from there.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.files.atomic import read_json, write_json
from components.files.locks import Unlockable, one_at_a_time, release_lock, take_lock
from pipelines.workspace import Workspace

CHOSEN, SENDING = "CHOSEN", "SENDING"


@dataclass
class Intent:
    """One submission on its way, as its file tells it.

    `facts` hold status (CHOSEN, SENDING to Kaggle, then the entry's own), host, competition, run (its folder below
    runs/), sha256, kernel, description, time, process, and on Kaggle `last_ref`, the newest ref that was known before.
    """

    path: Path
    facts: dict[str, Any]

    @property
    def ref(self) -> int | None:
        return self.facts.get("ref")

    def note(self, **facts: object) -> None:
        """Write down more of it. Raises OSError where the disk does not take it."""
        self.facts |= facts
        write_json(self.path, self.facts)

    def strike(self) -> None:
        """Nothing of it is left to do."""
        self.path.unlink(missing_ok=True)


class Journal:
    """The intents of one checkout."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.runs / ".unsettled"

    def settling(self) -> AbstractContextManager[None]:
        """Within the block no other process settles what was abandoned."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return one_at_a_time(self.folder / "settling.lock")

    def choosing(self) -> AbstractContextManager[None]:
        """Within the block no other process decides whether to send something."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return one_at_a_time(self.folder / "choosing.lock")

    @contextmanager
    def begun(self, **facts: object) -> Iterator[Intent]:
        """An intent that this process holds within the block. It outlives the block unless it is struck out there.

        Raises OSError where the disk does not take it: better before something is sent than after.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}.json"
        descriptor = _lock(path)
        try:
            intent = Intent(path, {})
            now = datetime.now(UTC).isoformat(timespec="seconds")
            intent.note(**({"status": CHOSEN, "time": now, "process": os.getpid()} | facts))
            yield intent
        finally:
            if descriptor is not None:
                release_lock(_lock_file(path), descriptor)

    def others(self) -> list[Intent]:
        """The intents of processes that are at work now."""
        found = []
        for path in self._paths():
            descriptor = _lock(path)
            if descriptor is None:
                found += [intent] if (intent := _read(path)) else []
            else:
                release_lock(_lock_file(path), descriptor)
        return found

    @contextmanager
    def abandoned(self) -> Iterator[list[Intent]]:
        """The intents that nobody holds, oldest first; they are this process's within the block."""
        held, intents = [], []
        try:
            for path in self._paths():
                descriptor = _lock(path)
                if descriptor is not None:
                    held.append((path, descriptor))
                    intents += [intent] if (intent := _read(path)) else []
            yield sorted(intents, key=lambda intent: str(intent.facts.get("time")))
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
        return take_lock(_lock_file(path), wait=False)
    except Unlockable:
        return None


def _read(path: Path) -> Intent | None:
    """An intent that was struck out meanwhile is none."""
    try:
        content = read_json(path)
    except ValueError:
        return None
    return Intent(path, content) if isinstance(content, dict) else None
