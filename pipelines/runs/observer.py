"""Who watches a training: the tracker, the person at the screen, and the wish to stop."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from components.memory.host_memory import FreedMemory
from pipelines.interruption import Interruption, handling
from pipelines.tracking.tracker import Tracker
from pipelines.runs.source.machine import peak_memory_bytes
from pipelines.screen import format_bytes, progress_console, say

PLAIN_LINE_SECONDS = 15.0


class StopWish:
    """Turns Ctrl-C, SIGTERM, a closed terminal and the end of the time allowed into a wish.

    The loop grants it after its current step, with a resume point written. `seconds` count from now; None has no end.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._was_asked = False
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self.answer = ""
        """What is said at once to a signal that will not be granted within seconds."""

    @property
    def is_set(self) -> bool:
        return self._was_asked or time.monotonic() >= self._deadline

    @contextmanager
    def listening(self) -> Iterator["StopWish"]:
        """Within the block signals set the wish; a second one interrupts at once."""
        with handling(self._note):
            yield self

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._was_asked:
            raise Interruption(number)
        self._was_asked = True
        if self.answer:
            # Not by way of sys.stderr, which the signal may have come in the midst of.
            with suppress(OSError):
                os.write(2, f"{self.answer}\n".encode())


class Screen:
    """A bar with loss, rate, memory and time left on a terminal; elsewhere a plain line now and then."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.console = progress_console(is_silent=is_silent)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """One line that stays."""
        say(text, self.console)

    @contextmanager
    def training(self, name: str, num_steps: int, first_step: int = 0) -> Iterator[None]:
        """Show the progress of one fold within the block."""
        self._name, self._num_steps, self._started = name, num_steps, (time.monotonic(), None)
        if not self.console.is_terminal or self.console.quiet:
            yield
            return
        columns = [
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        ]  # fmt: skip
        with Progress(*columns, console=self.console, transient=True, expand=True) as self._bar:
            self._task = self._bar.add_task(name, total=num_steps, completed=first_step, state="")
            yield
        self._bar = None

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """The newest values of a training's curves."""
        rate = metrics["train/steps_per_second"]
        lr = f"lr {metrics['train/lr']:.2e}  " if "train/lr" in metrics else ""
        state = f"loss {metrics['train/loss']:.4f}  {lr}{rate:.1f} steps/s  {format_bytes(peak_memory_bytes())}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, state=state)
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS or step == self._num_steps:
            self._last_line = time.monotonic()
            left = (self._num_steps - step) / max(rate, 1e-9)
            self.say(f"{self._name}  step {step}/{self._num_steps}  {state}  {left:.0f} s left")


class RunObserver:
    """Hands the loop's values of one fold to the tracker and the screen; see `components.training.loop.Observer`."""

    def __init__(self, tracker: Tracker, screen: Screen, stop_wish: StopWish) -> None:
        self.tracker, self.screen, self.stop_wish = tracker, screen, stop_wish
        self._freed_memory = FreedMemory()

    def on_step(self, step: int, *, was_evaluated: bool) -> None:
        self._freed_memory.after_step(step, was_evaluated=was_evaluated)

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.tracker.log_metrics(metrics, step)
        self.screen.show(step, metrics)

    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        self.tracker.log_metrics(scores, step)
        self.screen.say(f"step {step}  " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))

    def on_note(self, step: int, text: str, *, about: str = "memory") -> None:
        self.screen.say(text)
        self.tracker.log_tags({about: text})

    def should_stop(self) -> bool:
        return self.stop_wish.is_set
