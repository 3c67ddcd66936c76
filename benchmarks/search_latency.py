"""What a question costs, from its text to ten marked cards: each ranking beside the others, then many users at once.

    python benchmarks/search_latency.py                    # chinese_news, 300 questions, 16 users for 60 s
    python benchmarks/search_latency.py --corpus english_news --seconds 20

Needs the corpus's index (`podium search index CORPUS`) and imports no torch. Questions are the corpus's own headlines,
each asked once. Rankings are interleaved. A user asks, reads for a second and asks again.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from components.search.encoders import SentenceEncoder
from components.search.index import SearchIndex
from components.search.searching import search
from pipelines.search.indexing import open_search
from pipelines.workspace import Workspace

MODES = ("lexical", "dense", "hybrid")
READING_SECONDS = 1.0


def measure_modes(index: SearchIndex, encoder: SentenceEncoder, queries: list[str]) -> dict[str, list[float]]:
    """Seconds of each question in each ranking, one ranking after the other."""
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for query in queries:
        for mode in MODES:
            started = time.perf_counter()
            search(index, encoder, query, mode=mode)
            seconds[mode].append(time.perf_counter() - started)
    return seconds


def measure_users(
    index: SearchIndex, encoder: SentenceEncoder, queries: list[str], *, users: int, seconds: float
) -> tuple[list[float], list[str]]:
    """Seconds of all questions of all users, and whatever went wrong."""
    taken: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def use(number: int) -> None:
        place = number
        time.sleep(READING_SECONDS * number / users)
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                search(index, encoder, queries[place % len(queries)])
            except Exception as error:  # whatever it is, it is counted
                errors.append(repr(error))
            taken.append(time.perf_counter() - started)
            place += users
            time.sleep(READING_SECONDS)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, errors


def show(name: str, seconds: list[float], base: float) -> float:
    p50, p95, p99 = (1000 * float(np.percentile(seconds, share)) for share in (50, 95, 99))
    print(f"{name:<22}{len(seconds):>8}{p50:>10.1f}{p95:>10.1f}{p99:>10.1f}{p50 / base if base else 1.0:>9.2f}x")
    return p50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--corpus", default="chinese_news")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    index, encoder = open_search(Workspace(arguments.root.resolve()), arguments.corpus)
    step = max(1, index.record.num_articles // (2 * arguments.questions))
    titles = [article.title for article in index.store.read_all()[::step]]
    for title in titles[-20:]:
        search(index, encoder, title)
    seconds = measure_modes(index, encoder, titles[: arguments.questions])
    taken, errors = measure_users(index, encoder, titles, users=arguments.users, seconds=arguments.seconds)
    print(f"{arguments.corpus}: {index.record.num_articles:,} articles, encoder {encoder.name}, 1 thread each")
    print(f"{'':<22}{'asked':>8}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'to words':>10}")
    base = show("words", seconds["lexical"], 0)
    show("meaning", seconds["dense"], base)
    show("both", seconds["hybrid"], base)
    show(f"both, {arguments.users} users", taken, base)
    print(f"errors {len(errors)}, resident memory {psutil.Process().memory_info().rss / 1e6:.0f} MB")
    assert "torch" not in sys.modules
    if errors:
        sys.exit(errors[0])


if __name__ == "__main__":
    main()
