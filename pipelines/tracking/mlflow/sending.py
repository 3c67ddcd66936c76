"""Sending to a slow or unreliable store without making the caller wait: lanes of work and one thread that empties them.

Knows nothing of any store. What fails is kept and tried again, and what is left at the end stays in the journal, from
which a later command sends it. What no second try can cure is written to a file of JSON lines. No error of the store
ever reaches the caller, and none holds it up for longer than a `Patience`.
"""

import atexit
import json
import logging
import random
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pipelines.tracking.journal import Journal

REFUSED = "refused.jsonl"
_TRIES = 4
_PAUSE_SECONDS = 1.0
_Item = TypeVar("_Item")
_log = logging.getLogger(__name__)


@dataclass
class Job:
    """One request to the store, which may be repeated without harm, and what it says in words."""

    send: Callable[[], object]
    content: dict[str, object]


@dataclass(frozen=True)
class Patience:
    """How long a run that is done waits for its store, and how long for the next answer."""

    total_seconds: float = 50.0
    idle_seconds: float = 20.0


PATIENCE = Patience()


class Lane(ABC):
    """What waits to be sent for one run, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: deque[Job] = deque()

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether anything waits, as jobs or on its way to become jobs."""

    @abstractmethod
    def attach(self) -> None:
        """Make sure that the run exists in the store; called before each sending."""

    @abstractmethod
    def queue_jobs(self) -> None:
        """Turn what was logged since the last call into jobs."""


class Sender:
    """Empties the lanes every `flush_seconds`, from a thread of its own.

    What a caller logs it puts into a lane first and into the journal after that, so that a round which begins with the
    journal's size and empties every lane has sent all that the journal held by then.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        flush_seconds: float,
        is_hopeless: Callable[[Exception], bool],
        is_away: Callable[[Exception], bool],
        patience: Patience | None = None,
    ) -> None:
        self.lanes: list[Lane] = []
        self.journal = journal
        self.on_tick: Callable[[], None] | None = None
        self.busy_seconds = 0.0
        self.last_error: Exception | None = None
        self._flush_seconds = flush_seconds
        self._is_hopeless = is_hopeless
        self._is_away = is_away
        self._patience = patience or PATIENCE
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._has_given_up = threading.Event()
        self._is_all_sent = False
        self._stopped_at = self._answered_at = 0.0
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def start(self) -> None:
        self._thread.start()
        # A training that dies of an exception nobody caught still sends what it logged.
        atexit.register(self.stop)

    def stop(self) -> bool:
        """Let the thread send what is left, as long as the store answers; whether all was sent. Ctrl-C ends the wait.

        A thread that still waits for an answer is left to itself and dies with the process.
        """
        if not self._stopping.is_set():
            self._stopped_at = time.monotonic()
            self._stopping.set()
        with suppress(KeyboardInterrupt):
            while self._thread.is_alive() and self._has_patience():
                self._thread.join(0.1)
        self._has_given_up.set()
        atexit.unregister(self.stop)
        return self._is_all_sent

    def send_all(self) -> bool:
        """Send every lane from the calling thread, after the round that may be under way; whether nothing is left."""
        if not self._sending.acquire(timeout=self._patience.idle_seconds):
            return False
        try:
            started, size = time.thread_time(), self.journal.size
            is_all_sent = self._send_lanes()
            if is_all_sent:
                self.journal.mark_sent(size)
            self.busy_seconds += time.thread_time() - started
            return is_all_sent
        finally:
            self._sending.release()

    def _work(self) -> None:
        while not self._stopping.wait(self._flush_seconds):
            if self.on_tick is not None:
                try:
                    self.on_tick()
                except Exception as error:
                    self._warn(error)
                    self.on_tick = None
            self.send_all()
        while not self.send_all():
            if not self._has_patience():
                return
            time.sleep(_PAUSE_SECONDS)
        self._is_all_sent = True

    def _has_patience(self) -> bool:
        now = time.monotonic()
        is_idle = now - max(self._stopped_at, self._answered_at) > self._patience.idle_seconds
        is_late = now - self._stopped_at > self._patience.total_seconds
        return not (is_idle or is_late or self._has_given_up.is_set())

    def _send_lanes(self) -> bool:
        is_all_sent = True
        for lane in list(self.lanes):
            error = self._send(lane) if lane.has_work else None
            if error is not None:
                self._warn(error)
                is_all_sent = False
                if self._is_away(error):
                    break  # the other lanes would wait for the same silence
        return is_all_sent

    def _send(self, lane: Lane) -> Exception | None:
        """The error with which the lane stopped: the rest keeps its order and waits for the next round."""
        error = self._first_error(lane.attach)
        if error is not None:
            return error
        lane.queue_jobs()
        while lane.jobs:
            if self._has_given_up.is_set():
                return TimeoutError("the store took too long")
            error = self._first_error(lane.jobs[0].send)
            if error is not None:
                if not self._is_hopeless(error):
                    return error
                self._set_aside(lane, lane.jobs[0], error)
            lane.jobs.popleft()
            self._answered_at = time.monotonic()
        return None

    def _first_error(self, send: Callable[[], object]) -> Exception | None:
        """The error that remained after a few tries, None when one of them succeeded."""
        for attempt in range(_TRIES):
            try:
                send()
                return None
            except Exception as error:
                self.last_error = last_error = error
                if self._is_hopeless(error) or self._is_away(error):
                    break
            if attempt < _TRIES - 1:
                # Random, for two trainings that met at a database's lock must not meet again.
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
        return last_error

    def _set_aside(self, lane: Lane, job: Job, error: Exception) -> None:
        refused = self.journal.path.with_name(REFUSED)
        entry = {"run": lane.name, "error": describe_error(error), **job.content}
        self._warn(error, f"the tracker refused something that was logged; it lies in {refused}")
        try:
            with refused.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, default=str) + "\n")
        except OSError as failure:
            self._warn(failure)

    def _warn(self, error: Exception, words: str = "") -> None:
        if not self._has_warned:
            usual = (
                "the tracker could not store what was logged; the training goes on, and what cannot be sent until its "
                f"end stays in {self.journal.path} for the next command"
            )
            _log.warning("%s: %s", words or usual, describe_error(error))
        self._has_warned = True


def describe_error(error: Exception) -> str:
    """Its message in one line of at most 300 characters, without passwords."""
    return without_password(" ".join(str(error).split()) or type(error).__name__)[:300]


def without_password(text: str) -> str:
    """A URI, or a text with URIs in it, as it may be shown and stored."""
    return re.sub(r"//[^/@:\s]+:[^/@\s]+@", "//", text)


def chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Pieces of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def drain(queue: deque[_Item]) -> Iterator[_Item]:
    """The items of the queue in order, taken out one by one."""
    while queue:
        yield queue.popleft()
