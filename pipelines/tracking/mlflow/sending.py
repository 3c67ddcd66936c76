"""Sending to a slow or unreliable store without making the caller wait: lanes of work and one thread that empties them.

Knows nothing of any store. What fails is kept and tried again; what no second try can cure, and what is left at the
end, is written to a file of JSON lines. No error of the store ever reaches the caller.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_TRIES = 4
_Item = TypeVar("_Item")
_log = logging.getLogger(__name__)


@dataclass
class Job:
    """One request to the store, which may be repeated without harm, and what it says in words."""

    send: Callable[[], object]
    content: dict[str, object]


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
    """Empties the lanes every `flush_seconds`, from a thread of its own."""

    def __init__(self, unsent: Path, *, flush_seconds: float, is_hopeless: Callable[[Exception], bool]) -> None:
        self.lanes: list[Lane] = []
        self.on_tick: Callable[[], None] | None = None
        self.busy_seconds = 0.0
        self.num_unsent = 0
        self._unsent = unsent
        self._flush_seconds = flush_seconds
        self._is_hopeless = is_hopeless
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def start(self) -> None:
        self._thread.start()
        # A training that dies of an exception nobody caught still sends what it logged.
        atexit.register(self.send_all)

    def stop(self) -> None:
        """End the thread, send what is left, and write down what could not be sent."""
        self._stopping.set()
        self._thread.join()
        atexit.unregister(self.send_all)
        self.send_all()
        for lane in self.lanes:
            lane.queue_jobs()
            while lane.jobs:
                self._set_aside(lane, lane.jobs.popleft())

    def send_all(self) -> None:
        """Send every lane from the calling thread, after the round that may be under way."""
        with self._sending:
            started = time.thread_time()
            for lane in list(self.lanes):
                if lane.has_work:
                    self._send(lane)
            self.busy_seconds += time.thread_time() - started

    def _work(self) -> None:
        while not self._stopping.wait(self._flush_seconds):
            if self.on_tick is not None:
                try:
                    self.on_tick()
                except Exception as error:
                    self._warn(error)
                    self.on_tick = None
            self.send_all()

    def _send(self, lane: Lane) -> None:
        error = self._first_error(lane.attach)
        if error is not None:
            self._warn(error)
            return
        lane.queue_jobs()
        while lane.jobs:
            error = self._first_error(lane.jobs[0].send)
            if error is not None:
                self._warn(error)
                if not self._is_hopeless(error):
                    return  # the rest keeps its order and waits for the next round
                self._set_aside(lane, lane.jobs[0])
            lane.jobs.popleft()

    def _first_error(self, send: Callable[[], object]) -> Exception | None:
        """The error that remained after a few tries, None when one of them succeeded."""
        for attempt in range(_TRIES):
            try:
                send()
                return None
            except Exception as error:
                last_error = error
                if self._is_hopeless(error):
                    break
            if attempt < _TRIES - 1:
                # Random, for two trainings that met at a database's lock must not meet again.
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
        return last_error

    def _set_aside(self, lane: Lane, job: Job) -> None:
        self.num_unsent += 1
        try:
            self._unsent.parent.mkdir(parents=True, exist_ok=True)
            with self._unsent.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": lane.name, **job.content}, default=str) + "\n")
        except OSError as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            _log.warning(
                "the tracker could not store what was logged; the training goes on, and what cannot be sent until its "
                "end will lie in %s: %s",
                self._unsent,
                describe_error(error),
            )
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
