"""Podium's commands, forked from a warm process of the checkout that is tried, and how each one ended."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARM = Path(__file__).with_name("warm.py")
CLEAN = {
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "240",
    "NO_COLOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_TRACKING_URI": None,
    "SMOKE": None,
    "OVERFIT": None,
    "RANK": None,
    "WORLD_SIZE": None,
    "KAGGLE_USERNAME": None,
    "KAGGLE_KEY": None,
    "KAGGLE_API_TOKEN": None,
}


@dataclass(frozen=True)
class Outcome:
    """A command that has ended: `code` is negative for a signal and None where it had to be killed for its slowness."""

    words: str
    code: int | None
    out: str
    err: str
    seconds: float
    num_events: int

    @property
    def line(self) -> str:
        """What stands after "podium: ", the reason of a refusal."""
        return self.err.rpartition("podium: ")[2].strip() if "podium: " in self.err else ""

    def fault(self) -> str:
        """What is wrong with how it ended: "" where it succeeded, or said one line and exited 2."""
        if self.code is None:
            return f"hangs: no end after {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1][:300]}"
        if self.code == 0:
            return ""
        if self.code != 2:
            return f"exit code {self.code}: {self.err.strip()[-300:]}"
        if "\n" in self.line or not self.line:
            return f"more than one line, or none: {self.err.strip()[-400:]!r}"
        return ""


class Command:
    """One that may still be at work."""

    def __init__(self, words: str, folder: Path) -> None:
        self.words, self.folder = words, folder
        self.pid = 0
        self.status: int | None = None
        self.has_begun, self.has_ended = threading.Event(), threading.Event()
        self.started = time.monotonic()
        self.ended = 0.0

    def kill(self, number: int = signal.SIGKILL) -> None:
        if not self.has_ended.is_set():
            os.kill(self.pid, number)

    def wait(self, timeout: float = 150.0) -> Outcome:
        """Its end; one that takes longer is killed, with all that it started, and has no code."""
        is_slow = not self.has_ended.wait(timeout)
        if is_slow:
            os.killpg(self.pid, signal.SIGKILL)
            self.has_ended.wait(30)
        texts = {name: _read(self.folder / name) for name in ("out", "err", "events")}
        return Outcome(
            self.words,
            None if is_slow else self.status,
            texts["out"],
            texts["err"],
            self.ended - self.started,
            int(texts["events"] or 0),
        )


class Podium:
    """The warm process of a checkout. Commands may be started from several threads."""

    def __init__(self, python: Path, scratch: Path) -> None:
        self._scratch, self._lock, self._number = scratch, threading.Lock(), 0
        self._commands: dict[int, Command] = {}
        scratch.mkdir(parents=True)
        (scratch / "home").mkdir()
        environment = {name: value for name, value in os.environ.items() if name not in CLEAN}
        environment |= {name: value for name, value in CLEAN.items() if value is not None}
        environment["HOME"] = str(scratch / "home")
        with (scratch / "warm.log").open("wb") as log:
            self._process = subprocess.Popen(
                [python, WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=scratch, env=environment
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit(f"the warm process did not start: {_read(scratch / 'warm.log')[-2000:]}")
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self,
        root: Path,
        words: Sequence[str],
        *,
        kill: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        file_bytes: int | None = None,
    ) -> Command:
        """Begin `podium --root ROOT WORDS...`; `kill` names the change to a file before which a SIGKILL falls."""
        with self._lock:
            self._number += 1
            number = self._number
            folder = self._scratch / str(number)
            folder.mkdir()
            command = self._commands[number] = Command("podium " + " ".join(words), folder)
            request = {"id": number, "argv": ["--root", str(root), *words], "root": str(root), "kill": kill}
            request |= {name: str(folder / name) for name in ("out", "err", "events")}
            request |= {"env": dict(env or {}), "file_bytes": file_bytes}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        command.has_begun.wait(60)
        return command

    def run(self, root: Path, *words: str, timeout: float = 150.0, **options: Any) -> Outcome:  # noqa: ANN401
        return self.start(root, words, **options).wait(timeout)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            command = self._commands[answer["id"]]
            if "pid" in answer:
                command.pid, command.started = answer["pid"], time.monotonic()
                command.has_begun.set()
            else:
                command.status, command.ended = answer["status"], time.monotonic()
                command.has_ended.set()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
