"""Time, memory and error of one Adafactor step on T5's shapes, against transformers, torch and AdamW.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/adafactor_step.py

On a CPU the shapes are those of T5-v1.1-small (60 M numbers, head tied), on a GPU mT5-base's (390 M). Each optimizer
has its own turns, each in a process of its own, as whoever uses it would have it: allocators and threads of one do not
get into another's way, and a busy machine slows all alike. Gradients (rows of very different scale, some of them zero)
are written anew before each step, as a backward pass leaves them. `x` columns divide by the time of "numba" (on a GPU
"grouped"); a turn's first two steps are not counted.

Two measures of the memory that a step takes beyond what stays: `torch MB` is the peak of what torch's allocator handed
out, from the profiler's record of every allocation; `process MB` is the growth of the process's resident high-water
mark (Linux: reset through /proc/self/clear_refs), which also sees NumPy, numba and threads, but not what was reused.
On a GPU both columns are the peak of the CUDA allocator.

`error` is the largest relative distance of a tensor, in Frobenius norm, from a float64 twin after STEPS_FOR_ERROR
steps; torch's Adafactor has another rule for epsilon and none is printed for it, nor for AdamW.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.optimization import Adafactor as TransformersAdafactor

from components.optim.adafactor.optimizer import Adafactor

STEPS_FOR_ERROR = 10
LR = 1e-3
EXTERNAL = {"lr": LR, "relative_step": False, "scale_parameter": True}
Build = Callable[[list[nn.Parameter]], Optimizer]

ADAFACTORS: dict[str, Build] = {
    "numba": lambda params: Adafactor(params, **EXTERNAL, path="numba"),
    "blocks": lambda params: Adafactor(params, **EXTERNAL, path="blocks"),
    "plain": lambda params: Adafactor(params, **EXTERNAL, path="plain"),
    "grouped": lambda params: Adafactor(params, **EXTERNAL, path="grouped"),
    "transformers": lambda params: TransformersAdafactor(params, **EXTERNAL, warmup_init=False),
}
OTHERS: dict[str, Build] = {
    "torch": lambda params: torch.optim.Adafactor(params, lr=LR),
    "AdamW fused": lambda params: torch.optim.AdamW(params, lr=LR, fused=True),
    "AdamW foreach": lambda params: torch.optim.AdamW(params, lr=LR, foreach=True),
}


def t5_shapes(vocab: int, width: int, inner: int, heads: int, layers: int) -> list[tuple[int, ...]]:
    """Shapes of a T5 v1.1 with `layers` blocks on either side and one matrix for embeddings and head."""
    attention = [(heads * 64, width)] * 3 + [(width, heads * 64), (width,)]
    feed_forward = [(inner, width), (inner, width), (width, inner), (width,)]
    tables = [(vocab, width), (32, heads), (32, heads), (width,), (width,)]
    return [*tables, *(attention + feed_forward) * layers, *(attention * 2 + feed_forward) * layers]


def build_params(shapes: list[tuple[int, ...]], device: str, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter((torch.randn(shape, generator=generator) * 0.05).to(device, dtype)) for shape in shapes]


def build_gradients(shapes: list[tuple[int, ...]], device: str, seed: int = 1) -> list[Tensor]:
    """Rows from 1e-6 to 1e2 in scale; every seventh row of a matrix is zero, as unused words' rows are."""
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for shape in shapes:
        scales = 10 ** (8 * torch.rand((*shape[:-1], 1), generator=generator) - 6)
        gradient = torch.randn(shape, generator=generator) * scales
        if len(shape) > 1:
            gradient[::7] = 0
        gradients.append(gradient.to(device))
    return gradients


def set_gradients(params: list[nn.Parameter], gradients: list[Tensor]) -> None:
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.to(param.dtype)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_step(optimizer: Optimizer) -> float:
    """Milliseconds of one step."""
    synchronize()
    start = time.perf_counter()
    optimizer.step()
    synchronize()
    return (time.perf_counter() - start) * 1e3


def state_bytes(optimizer: Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def allocated_peak(optimizer: Optimizer) -> float:
    """MB that torch's allocator handed out at most during one step."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        optimizer.step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        optimizer.step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def resident_peak(optimizer: Optimizer) -> float:
    """MB by which the process grew at most during one step; NaN where the system does not tell."""
    if torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists():
        return float("nan")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mark("VmRSS")
    optimizer.step()
    return (resident_mark("VmHWM") - before) / 1e3


def resident_mark(name: str) -> int:
    """KB, from /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def float64_twin(shapes: list[tuple[int, ...]], device: str, seeds: list[int]) -> list[Tensor]:
    params = build_params(shapes, device, torch.float64)
    optimizer = Adafactor(params, **EXTERNAL, path="plain")
    for seed in seeds:
        set_gradients(params, build_gradients(shapes, device, seed))
        optimizer.step()
    return [param.detach() for param in params]


def largest_error(build: Build, shapes: list[tuple[int, ...]], device: str, expected: list[Tensor]) -> float:
    params = build_params(shapes, device)
    optimizer = build(params)
    for seed in range(STEPS_FOR_ERROR):
        set_gradients(params, build_gradients(shapes, device, seed))
        optimizer.step()
    return max(
        float((param.detach().double() - value).norm() / value.norm())
        for param, value in zip(params, expected, strict=True)
    )


def device_shapes() -> tuple[str, list[tuple[int, ...]]]:
    if torch.cuda.is_available():
        return "cuda", t5_shapes(250_112, 768, 2048, 12, 12)
    return "cpu", t5_shapes(32_128, 512, 1024, 6, 8)


def run_turn(name: str, rounds: int) -> None:
    """One optimizer in this process; the last line of its output is what was measured."""
    device, shapes = device_shapes()
    params = build_params(shapes, device)
    gradients = build_gradients(shapes, device)
    set_gradients(params, gradients)
    optimizer = {**ADAFACTORS, **OTHERS}[name](params)
    times = []
    for _ in range(rounds + 2):
        for gradient in gradients:
            gradient.mul_(1.0)
        times.append(time_step(optimizer))
    memory = [allocated_peak(optimizer), resident_peak(optimizer)]
    print(json.dumps({"times": times[2:], "memory": memory, "state": state_bytes(optimizer)}))


def start_turn(name: str, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--contender", name, "--rounds", str(rounds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, Any] = json.loads(output.splitlines()[-1])
    return measured


def report(turns: int, rounds: int, with_errors: bool) -> Iterator[str]:
    device, shapes = device_shapes()
    reference, absent = ("grouped", "numba") if device == "cuda" else ("numba", "grouped")
    names = [name for name in (*ADAFACTORS, *OTHERS) if name != absent]
    count = sum(torch.Size(shape).numel() for shape in shapes)
    yield f"{count / 1e6:.1f} M numbers in {len(shapes)} tensors, {device}, {torch.get_num_threads()} threads"
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(turns):
        for name in names:
            measured[name].append(start_turn(name, rounds))
    times = {name: [value for turn in measured[name] for value in turn["times"]] for name in names}
    medians = {name: statistics.median(values) for name, values in times.items()}
    least = {name: min(values) for name, values in times.items()}
    memory = {name: [max(turn["memory"][k] for turn in measured[name]) for k in range(2)] for name in names}
    errors = {}
    if with_errors:
        expected = float64_twin(shapes, device, list(range(STEPS_FOR_ERROR)))
        errors = {
            name: largest_error(ADAFACTORS[name], shapes, device, expected) for name in names if name in ADAFACTORS
        }
    yield "               median ms       x   least ms       x   state MB  torch MB  process MB    error"
    for name in names:
        yield (
            f"{name:13s}  {medians[name]:9.1f}  {medians[name] / medians[reference]:6.2f}  {least[name]:9.1f}"
            f"  {least[name] / least[reference]:6.2f}  {measured[name][0]['state'] / 1e6:9.2f}  {memory[name][0]:8.1f}"
            f"  {memory[name][1]:10.1f}  {errors.get(name, float('nan')):7.1e}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10, help="steps of a turn")
    parser.add_argument("--no-errors", action="store_true", help="leave out the comparison with float64, which is slow")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_turn(arguments.contender, arguments.rounds)
    else:
        for line in report(arguments.turns, arguments.rounds, not arguments.no_errors):
            print(line, flush=True)
