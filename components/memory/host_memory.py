"""What the process does with memory that nobody uses any more: kept from step to step, given back now and then.

A step frees what the next one asks for. glibc hands much of it back to the system in between, and every page that
comes again costs a fault: 5,000 of them a step of a six-layer BERT with 16 headlines, 7 % of its time.

Keeping all of it for good is no answer: glibc before 2.38 finds a freed block again for another aligned request only
where much more than its size is free (sourceware.org bug 14581), and torch aligns every tensor. Batches whose shapes
change from step to step then take new memory each time, without end, though all of it is free: 17 MB a step with 256
packed texts of width 96.
"""

import ctypes
import functools
import os
from collections.abc import Callable

import psutil
from torch import Tensor, nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of mallopt's, as malloc.h has them
_LARGEST_SHARED = 32 << 20
"""The largest block, in bytes, that glibc lets share the heap with others; larger ones are mapped one by one."""

LOOK_EVERY_STEPS = 20
_LEAST_GROWTH = 64 << 20
"""Bytes by which a process may grow before what it freed goes back to the system; an eighth of it, if that is more."""
_LARGE_EMBEDDING = 256 << 20
"""Bytes of an embedding before whose gradient freed memory goes back. Such a step takes seconds, new pages a tenth."""


class FreedMemory:
    """Gives back what steps freed once the process has outgrown what it held a step after the last time.

    Every time costs the next steps a page fault a page, on a virtual machine microseconds each: given back every 20
    steps, a T5 of .8 million weights took 26.4 ms a step instead of 24.0.
    """

    def __init__(self) -> None:
        self._limit: int | None = None

    def after_step(self, step: int, *, was_evaluated: bool) -> None:
        """Give back after an evaluation; else look at the process every 20 steps, and after the first one since."""
        if was_evaluated:
            self._give_back()
            return
        if self._limit is not None and step % LOOK_EVERY_STEPS:
            return
        resident: int = psutil.Process().memory_info().rss
        if self._limit is None:
            self._limit = resident + max(resident // 8, _LEAST_GROWTH)
        elif resident > self._limit:
            self._give_back()

    def _give_back(self) -> None:
        give_back_memory()
        self._limit = None


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed until `give_back_memory`, for the rest of the process.

    False, and nothing is changed, where the C library cannot or the environment sets its thresholds already
    (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    return all(
        [set_option(_M_TRIM_THRESHOLD, 2**31 - 1), set_option(_M_MMAP_THRESHOLD, _LARGEST_SHARED)]  # 1 is success
    )


def give_back_memory() -> bool:
    """Return the pages of free blocks to the system, which takes milliseconds; False where the C library cannot.

    The addresses stay the allocator's, so that the next use of a page costs a fault. (Mapping large blocks one by one,
    `MALLOC_MMAP_THRESHOLD_`, keeps memory low too, at 1.7 times the time of a step.)
    """
    trim = _find_trim()
    if trim is None:
        return False
    trim(0)
    return True


def give_back_before_gradients(model: nn.Module) -> None:
    """Return freed memory in each backward pass before the gradient of a large embedding of `model` is made.

    That gradient comes last, as large as the vocabulary, when most of the heap is the holes that activations left: 800
    of a step's 2,050 MB in mT5-small with 250,112 pieces. Nothing is done for an embedding under 256 MB, whose gradient
    fits into those, for one on another device, and for one that is the head as well, whose gradient the forward pass
    has made.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight.is_cpu and module.weight.nbytes >= _LARGE_EMBEDDING:
            module.register_forward_hook(_hook_looked_up)


def _hook_looked_up(_: nn.Module, __: tuple[Tensor, ...], looked_up: Tensor) -> None:
    if looked_up.requires_grad:
        looked_up.register_hook(_give_back_hook)  # type: ignore[no-untyped-call]


def _give_back_hook(_: Tensor) -> None:
    give_back_memory()


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
