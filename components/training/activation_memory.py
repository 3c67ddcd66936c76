"""How many bytes a step holds: those kept between forward and backward, and the peak.

On a CPU every allocation and release of torch's allocator is read from the profiler, so that temporaries inside kernels
count and two measurements of one step are equal to the byte. On CUDA the caching allocator's own counters are read,
which round to 512 bytes.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class MemoryUse:
    """Bytes above what was held before: the most at any time, and what is left while the result lives."""

    peak: int
    left: int


def measure_memory(function: Callable[[], object]) -> MemoryUse:
    """Run `function` once and watch the allocator of the device in use (CUDA where it is initialised).

    Run it once before, so that buffers which live for ever are not counted.
    """
    with _without_collection():
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            return _measure_cuda(function)
        return _measure_cpu(function)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Garbage of earlier steps goes beforehand, or its release would count."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _measure_cpu(function: Callable[[], object]) -> MemoryUse:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    recorded = profiler.profiler
    assert recorded is not None
    assert recorded.kineto_results is not None
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = [0, *accumulate(event.nbytes() for event in events if event.device_type() == DeviceType.CPU)]
    del result
    return MemoryUse(peak=max(held), left=held[-1])


def _measure_cuda(function: Callable[[], object]) -> MemoryUse:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    use = MemoryUse(torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before)
    del result
    return use


def saved_bytes(forward: Callable[[], object]) -> int:
    """Bytes that a forward pass leaves behind for the backward pass, its result included.

    Counts whatever keeps them: autograd, a selective checkpoint's store (which saved-tensor hooks cannot see), copies.
    Weights and inputs exist before and do not count. `forward` must return what keeps the graph alive.
    """
    return measure_memory(forward).left


def peak_bytes(step: Callable[[], object]) -> int:
    """The most bytes at any time of a step above those held before it; gradients made by the step count."""
    return measure_memory(step).peak
