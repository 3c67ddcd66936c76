"""Contenders that take turns, each in a process of its own: what the races to a score stand on.

What a process sets for itself, such as its allocator's thresholds, then holds for the contender that asked for it, as
it would for whoever uses that one alone. One contender runs at a time, from one evaluation to the next, so that a busy
machine slows all alike, and a clock runs only during its owner's turns.
"""

import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from components.memory.host_memory import FreedMemory
from components.process_settings import tune_process

YOUR_TURN, READY, DONE = "your turn", "ready", "done"
R = TypeVar("R")


@dataclass(frozen=True)
class Point:
    """A score, and the seconds that training and evaluating took until then."""

    step: int
    training: float
    processor: float
    """Of training, as the process was charged for it."""
    evaluating: float
    score: float

    @property
    def seconds(self) -> float:
        return self.training + self.evaluating


class Clock:
    """Measures the contender of this process, and hands the machine over after each evaluation."""

    def __init__(self, name: str, pipe: Connection) -> None:
        self.name, self._pipe = name, pipe
        self._training = self._processor = self._evaluating = 0.0

    def start(self) -> None:
        self._since = _now(), time.process_time()

    def evaluate(self, step: int, score: Callable[[], float]) -> float:
        """What `score` returns, after the others have had their turn."""
        before = _now()
        self._training += before - self._since[0]
        self._processor += time.process_time() - self._since[1]
        value = score()
        self._evaluating += _now() - before
        self._pipe.send(Point(step, self._training, self._processor, self._evaluating, value))
        self.wait()
        self.start()
        return value

    def wait(self) -> None:
        assert self._pipe.recv() == YOUR_TURN

    def tell(self, word: str) -> None:
        self._pipe.send(word)


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def evaluation_steps(num_steps: int, every: int) -> Iterator[int]:
    """The steps after which our loop evaluates, the last among them."""
    return (min(step, num_steps) for step in range(every, num_steps + every, every))


class Silent:
    """Watches our loop, and says nothing but what it must."""

    def __init__(self) -> None:
        self._freed_memory = FreedMemory()

    def on_step(self, step: int, *, was_evaluated: bool) -> None:
        self._freed_memory.after_step(step, was_evaluated=was_evaluated)

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def on_evaluation(self, step: int, scores: object) -> None: ...
    def on_note(self, step: int, text: str, *, about: str = "memory") -> None:
        print(f"    step {step}: {text}", flush=True)

    def should_stop(self) -> bool:
        return False


def take_turns(
    contenders: Mapping[str, Callable[[R, Clock], None]], race: R, *, num_threads: int, first: str
) -> dict[str, list[Point]]:
    """The points of each; `race` and the contenders are pickled, and who fails ends it for all."""
    context = get_context("spawn")
    pipes, processes = {}, {}
    for name, contend in contenders.items():
        pipes[name], far_end = context.Pipe()
        processes[name] = context.Process(target=_contend, args=(contend, race, Clock(name, far_end), num_threads))
        processes[name].start()
        far_end.close()  # so that a process that dies is noticed
    points: dict[str, list[Point]] = {name: [] for name in contenders}
    try:
        for name in contenders:
            assert _receive(name, pipes[name]) == READY
        waiting = sorted(contenders, key=lambda name: name != first)
        while waiting:
            name = waiting.pop(0)
            pipes[name].send(YOUR_TURN)
            message = _receive(name, pipes[name])
            if isinstance(message, Point):
                print(
                    f"    {name:12s} step {message.step:6d}  {message.training:7.1f} s  {message.score:7.2%}",
                    flush=True,
                )
                points[name].append(message)
                waiting.append(name)
            else:
                processes[name].join()
    finally:
        for process in processes.values():
            process.terminate()
    return points


def _contend(contend: Callable[[R, Clock], None], race: R, clock: Clock, num_threads: int) -> None:
    """The life of a contender's process."""
    tune_process(num_threads=num_threads)
    clock.tell(READY)
    clock.wait()
    try:
        contend(race, clock)
    except BaseException:
        clock.tell(traceback.format_exc())
    else:
        clock.tell(DONE)


def _receive(name: str, pipe: Connection) -> Point | str:
    """The next point, READY or DONE; RuntimeError with the other process's own traceback where it failed."""
    try:
        message: Point | str = pipe.recv()
    except EOFError:
        raise RuntimeError(f"{name}: the process died") from None
    if isinstance(message, str) and message not in (READY, DONE):
        raise RuntimeError(f"{name} failed:\n{message}")
    return message


# -- what came out ---------------------------------------------------------------------------------------------------

Races = Sequence[Mapping[str, Sequence[Point]]]


def first_point(points: Sequence[Point], reaches: Callable[[float], bool]) -> Point | None:
    return next((point for point in points if reaches(point.score)), None)


def print_ratios(races: Races, names: tuple[str, str], reaches: Callable[[float], bool], target: str) -> None:
    """The first over the second, the median over the races, below one where the first is faster."""
    one, other = names
    steps = [race[one][-1].training / race[other][-1].training for race in races]
    print(f"{one} / {other}, median of {len(races)}: time of a step {statistics.median(steps):.2f}", end="")
    pairs = [[first_point(race[name], reaches) for name in names] for race in races]
    both = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not both:
        print(f"; {target} was not reached by both")
        return
    whole = statistics.median(ours.seconds / theirs.seconds for ours, theirs in both)
    training = statistics.median(ours.training / theirs.training for ours, theirs in both)
    print(f", time to {target} with evaluation {whole:.2f}, without {training:.2f} ({len(both)} seeds)")
