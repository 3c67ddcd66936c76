"""What the page says of its own process: how often it loaded, how fast it answers, how much memory it holds."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter

import psutil

REMEMBERED = 1000


class Health:
    """Counts of loads and the newest searches' seconds; shared by all sessions."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._num_searches = 0
        self._lock = Lock()

    def count_load(self, kind: str) -> None:
        """One more load of an "encoder" or an "index"."""
        with self._lock:
            self.loads[kind] += 1

    @contextmanager
    def timed_search(self) -> Iterator[None]:
        """Takes the time of a search that was really made, not remembered."""
        started = perf_counter()
        yield
        with self._lock:
            self._num_searches += 1
            self._seconds.append(perf_counter() - started)

    def describe(self) -> dict[str, int]:
        """Loads, searches, median and 95th percentile in milliseconds, resident memory in MB."""
        with self._lock:
            ordered = sorted(self._seconds)
            values = {"encoder_loads": self.loads["encoder"], "index_loads": self.loads["index"]}
            values["searches"] = self._num_searches
        values |= {f"p{share}": round(1000 * _percentile(ordered, share / 100)) for share in (50, 95)}
        return values | {"rss": round(psutil.Process().memory_info().rss / 1e6)}


HEALTH = Health()
"""This process's. A module outlives the page's script, which Streamlit runs anew at every click."""


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
