"""When Kaggle is asked again. Its client repeats uploads and dataset versions, and nothing else.

Reading may be repeated at will. What changes something may not: where an answer is lost the change may have arrived, so
it is looked for before anything is sent a second time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from requests import ConnectionError, ConnectTimeout, RequestException
from urllib3.exceptions import NewConnectionError

from pipelines.kaggle.errors import retry_after, status_of

T = TypeVar("T")
NUM_LOOKS = 3


@dataclass(frozen=True)
class Retries:
    """Pauses of `first_pause` seconds, growing by `factor` up to `max_pause`; after `max_attempts` the error stands.

    A 429 says itself how long to wait; where that is more than `max_pause` its error stands at once and says so.
    """

    max_attempts: int = 6
    first_pause: float = 1.0
    factor: float = 2.0
    max_pause: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def read(self, function: Callable[[], T]) -> T:
        """The answer of a call that changes nothing."""
        for attempt in range(1, self.max_attempts):
            try:
                return function()
            except RequestException as error:
                self._wait_or_raise(error, attempt)
        return function()

    def change(self, function: Callable[[], T], arrived: Callable[[], T | None]) -> T:
        """The answer of a call that changes something, which thereby happens once.

        After an error that leaves open whether it happened, `arrived` looks for it, a few times with pauses between,
        and its answer counts; only where it finds nothing is the call sent again.
        """
        for attempt in range(1, self.max_attempts + 1):
            try:
                return function()
            except RequestException as error:
                if leaves_open(error):
                    found = self._look(arrived)
                    if found is not None:
                        return found
                if attempt == self.max_attempts:
                    raise
                self._wait_or_raise(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def pause(self, number: int) -> float:
        """Seconds to wait before asking for the `number`-th time (from 1) whether something has ended."""
        return min(self.first_pause * self.factor ** (number - 1), self.max_pause)

    def _look(self, arrived: Callable[[], T | None]) -> T | None:
        for look in range(1, NUM_LOOKS + 1):
            self.sleep(self.pause(look))
            found = self.read(arrived)
            if found is not None:
                return found
        return None

    def _wait_or_raise(self, error: RequestException, attempt: int) -> None:
        """Sleep before the next attempt, or raise `error` where it will not pass by itself."""
        status = status_of(error)
        if status is not None and status != 429 and status < 500:
            raise error
        seconds = self.pause(attempt)
        if status == 429:
            seconds = retry_after(error) or seconds
            if seconds > self.max_pause:
                raise error
        self.sleep(seconds)


def leaves_open(error: RequestException) -> bool:
    """Whether what was asked for may have happened although this error came back."""
    status = status_of(error)
    if status is not None:
        return status >= 500
    if isinstance(error, ConnectTimeout):
        return False
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return not (isinstance(error, ConnectionError) and isinstance(cause, NewConnectionError))
