"""Memory that nobody uses any more and the process still holds, given back to the system.

glibc before 2.38 finds a freed block again for another aligned request only where much more than its size is free
(sourceware.org bug 14581), and torch aligns every tensor. Batches whose shapes change from step to step then take new
memory each time, without end, though all of it is free: 17 MB a step with 256 packed texts of width 96.
"""

import ctypes
import functools
from collections.abc import Callable


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


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
