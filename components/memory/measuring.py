"""How many bytes a step holds: those kept between forward and backward, and the peak.

On a CPU every allocation and release of torch's allocator is read from the profiler, so that temporaries inside kernels
count and two measurements of one step are equal to the byte. On CUDA the caching allocator's own counters are read,
which round to 512 bytes.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

# Read at the profiler's first use; it greets on standard error otherwise
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
MARK = "podium.mark."


@dataclass(frozen=True)
class MemoryUse:
    """Bytes above what was held before: the most at any time, and what is left while the result lives."""

    peak: int
    left: int


def measure_memory(function: Callable[[], object], device: torch.device | None = None) -> MemoryUse:
    """Run `function` once and watch the allocator of `device`; without one, CUDA's where CUDA is initialised.

    Whoever knows the device says it: torch's optimizers initialise CUDA for weights on the CPU too.
    Run it once before, so that buffers which live for ever are not counted.
    """
    with without_collection():
        return _measure_cuda(function) if _is_cuda(device) else _measure_cpu(function)


def _is_cuda(device: torch.device | None) -> bool:
    if device is None:
        return torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return device.type == "cuda"


@contextmanager
def without_collection() -> Iterator[None]:
    """Within the block no garbage is collected: that of earlier steps goes beforehand, or its release would count.

    Around several measurements it saves the collections, each of which looks at every object there is.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _measure_cpu(function: Callable[[], object]) -> MemoryUse:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    held = [0, *accumulate(num_bytes for _, num_bytes in _allocations(profiler))]
    del result
    return MemoryUse(peak=max(held), left=held[-1])


def _allocations(profiler: profile) -> list[tuple[str, int]]:
    """Marks, and bytes allocated (or, below 0, released) on the CPU, in order of time."""
    recorded = profiler.profiler
    assert recorded is not None
    assert recorded.kineto_results is not None
    events = sorted(recorded.kineto_results.events(), key=lambda event: event.start_ns())
    on_cpu = [event for event in events if event.device_type() == DeviceType.CPU]
    return [
        (event.name(), event.nbytes() if event.name() == "[memory]" else 0)  # type: ignore[attr-defined]
        for event in on_cpu
        if event.name() == "[memory]" or event.name().startswith(MARK)
    ]


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


def peak_bytes(step: Callable[[], object], device: torch.device | None = None) -> int:
    """The most bytes at any time of a step above those held before it; gradients made by the step count."""
    return measure_memory(step, device).peak


def tensor_bytes(values: Iterable[object]) -> int:
    """Bytes of those of `values` that are tensors."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


# -- phases of a step ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """From one mark to the next: bytes held at its beginning and the most within, above those before the step."""

    name: str
    held: int
    peak: int


def measure_phases(
    function: Callable[[Callable[[str], None]], object], device: torch.device | None = None
) -> list[Phase]:
    """Run `function(mark)` once; each call of `mark(name)` begins a phase. `device` is that of `measure_memory`."""
    with without_collection():
        return _phases_on_cuda(function) if _is_cuda(device) else _phases_on_cpu(function)


def _phases_on_cpu(function: Callable[[Callable[[str], None]], object]) -> list[Phase]:
    def mark(name: str) -> None:
        with record_function(MARK + name):
            pass

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function(mark)
    events = _allocations(profiler)
    del result
    phases, held = [], 0
    for name, num_bytes in events:
        held += num_bytes
        if name.startswith(MARK):
            phases.append(Phase(name.removeprefix(MARK), held, held))
        elif phases and held > phases[-1].peak:
            phases[-1] = replace(phases[-1], peak=held)
    return phases


def _phases_on_cuda(function: Callable[[Callable[[str], None]], object]) -> list[Phase]:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    begun: list[tuple[str, int]] = []
    peaks: list[int] = []

    def mark(name: str) -> None:
        if begun:
            peaks.append(torch.cuda.max_memory_allocated() - before)
        begun.append((name, torch.cuda.memory_allocated() - before))
        torch.cuda.reset_peak_memory_stats()

    result = function(mark)
    mark("end")
    del result
    return [Phase(name, held, peak) for (name, held), peak in zip(begun, peaks, strict=False)]
