"""Ctrl-C, SIGTERM and a closed terminal, from a command's first moment to its last: one line and no traceback.

Within `interruptible()` these signals raise an `Interruption`, as Ctrl-C raises a KeyboardInterrupt, so that whatever
cleans up after an error cleans up after them. A training listens otherwise, see `pipelines.runs.observer.StopWish`.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_MOMENT = 0.02
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption(KeyboardInterrupt):
    """A signal asked the command to end; `way_on` says what to do next, where somebody knows that."""

    def __init__(self, number: int = signal.SIGINT, way_on: str = "") -> None:
        super().__init__()
        self.number, self.way_on = number, way_on


class Heard:
    """The signal that was heard first; None as long as there was none."""

    number: int | None = None


@contextmanager
def interruptible(*, is_last: bool = False) -> Iterator[Heard]:
    """Within the block the stopping signals raise an `Interruption`; outside the main thread nothing changes.

    After a block that is the process's last they end it at once and without a word, for all is said.
    """
    heard, process = Heard(), os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)  # a forked worker; its parent speaks
        heard.number = heard.number or number
        raise Interruption(number)

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    former_hook = sys.unraisablehook

    def raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised in a finalizer, of which an import runs thousands."""
        if isinstance(unraisable.exc_value, Interruption):
            # A moment later, or this hook would be what is interrupted.
            number = signal.Signals(unraisable.exc_value.number)
            timer = threading.Timer(_MOMENT, _thread.interrupt_main, [number])
            timer.daemon = True
            timer.start()
        else:
            former_hook(unraisable)

    sys.unraisablehook = raise_again
    try:
        with handling(interrupt):
            yield heard
    finally:
        sys.unraisablehook = former_hook
        if is_last:
            _set_handler(lambda number, _: os._exit(128 + number))


@contextmanager
def handling(handler: "signal._HANDLER") -> Iterator[None]:
    """Within the block this handler has the stopping signals; a command under nohup goes on without its terminal."""
    former = _set_handler(handler)
    try:
        yield
    finally:
        for number, handler_before in former.items():
            # None is a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler_before is None else handler_before)


def _set_handler(handler: "signal._HANDLER") -> "dict[signal.Signals, signal._HANDLER]":
    numbers = [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


@contextmanager
def way_on(words: str) -> Iterator[None]:
    """An interruption within the block is told with these words, unless a block within it had its own."""
    try:
        yield
    except Interruption as error:
        error.way_on = error.way_on or words
        raise
