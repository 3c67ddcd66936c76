"""What each treatment costs a layer in bytes and seconds, watched while the whole model takes small steps.

In one step neighbouring layers are under different treatments, so that a handful of steps of a few rows tells all that
`memory_planner` needs: no layer is run by itself, and how a model calls its layers does not matter. Bytes are linear in
the rows, so two sizes give those of a whole batch. Layers of one stack are taken to be alike.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate, count

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from components.memory.checkpointing import apply_plan
from components.memory.measuring import measure_phases, tensor_bytes
from components.memory.out_of_memory import count_rows
from components.memory.planner import Surroundings, TreatmentCost
from components.memory.plans import LayerPlan, Treatment

Batch = Mapping[str, Tensor]
Step = Callable[[Batch], object]
Mark = Callable[[str], None]
Bytes = dict[str, float]  # "<phase> held" and "<phase> peak"
NUM_TICKS = 100  # times are rounded to so many parts of the dearest: no better known, and plans are compared sooner


@dataclass(frozen=True)
class StepCosts:
    """What `memory_planner.choose_plan` chooses from: each layer's costs, and what is around the layers."""

    layers: tuple[tuple[TreatmentCost, ...], ...]
    surroundings: Surroundings

    def with_floor(self, floor: int) -> "StepCosts":
        """The same, where a step takes at least `floor` bytes at some time."""
        around = replace(self.surroundings, floor=max(floor, self.surroundings.floor))
        return replace(self, surroundings=around)


@contextmanager
def applied_treatments(stacks: Sequence[nn.ModuleList], treatments: Sequence[Treatment]) -> Iterator[None]:
    """Put one treatment on each layer of all stacks, in the order in which they run, within the block."""
    with ExitStack() as handles:
        for stack, start in zip(stacks, _starts(stacks), strict=True):
            handles.enter_context(apply_plan(stack, LayerPlan(tuple(treatments[start : start + len(stack)]))))
        yield


def _starts(stacks: Sequence[nn.ModuleList]) -> list[int]:
    return list(accumulate((len(stack) for stack in stacks[:-1]), initial=0))


def take_rows(batch: Batch, num_rows: int) -> dict[str, Tensor]:
    """So many rows of a batch, spread over it."""
    rows = torch.arange(num_rows) * count_rows(batch) // num_rows
    return {name: value[rows.to(value.device)] for name, value in batch.items()}


def measure_costs(
    model: nn.Module,
    stacks: Sequence[nn.ModuleList],
    step: Step,
    batch: Batch,
    offered: Sequence[Treatment],
    *,
    has_gradients: bool = False,
    num_rounds: int = 3,
) -> StepCosts:
    """Costs of `step(batch)`, a forward and a backward pass of `model`, under each treatment on offer.

    `has_gradients` where a step adds to gradients that are there already, as in gradient accumulation; they do not
    count then. Leaves gradients behind; buffers and random states are the caller's to restore.
    """
    watch = _Watch(model, stacks, step, has_gradients=has_gradients)
    probes = _build_probes(watch, offered)
    step(take_rows(batch, 1))  # buffers that live for ever are made
    num_rows = count_rows(batch)
    least = max(1, num_rows // 8)
    small, large = take_rows(batch, least), take_rows(batch, min(num_rows, 2 * least))
    seen = [_extrapolate(watch.bytes(small, probe), watch.bytes(large, probe), least, num_rows) for probe in probes]
    times = [watch.seconds(large, probe) for _ in range(num_rounds) for probe in probes]
    layers: list[tuple[TreatmentCost, ...]] = []
    for number, stack in enumerate(stacks):
        costs = _Stack(watch, number, probes).costs(offered, seen, times)
        layers.extend([costs] * len(stack))
    return StepCosts(tuple(layers), watch.surroundings(seen[0]))


def _extrapolate(small: Bytes, large: Bytes, num_small: int, num_rows: int) -> Bytes:
    """Both were measured on `num_small` and, at most, twice as many rows.

    A layer's backward pass is measured in parts, "backward 3/1": with few rows its worst moment is when it has made all
    its gradients, which do not grow with rows, with many rows another.
    """
    factor = (num_rows - num_small) / num_small if num_rows > num_small else 0.0
    whole: Bytes = {}
    for name, value in small.items():
        phase, _, kind = name.rpartition(" ")
        merged = f"{phase.partition('/')[0]} {kind}"
        grown = value + (large[name] - value) * factor
        if merged == name or kind == "peak":
            whole[merged] = max(grown, whole.get(merged, grown))
    return whole


class _Watch:
    """Marks where each layer's forward and backward pass begins, and reads bytes or the clock there."""

    def __init__(self, model: nn.Module, stacks: Sequence[nn.ModuleList], step: Step, *, has_gradients: bool) -> None:
        self.model, self.stacks = model, stacks
        self.step, self.has_gradients = step, has_gradients
        self.layers = [layer for stack in stacks for layer in stack]
        self.starts = _starts(stacks)
        self.inputs: dict[int, tuple[StorageWeakRef, int]] = {}
        self.freed: dict[int, int] = {}
        self.gradients = [0 if has_gradients else _gradient_bytes(layer) for layer in self.layers]

    def later(self, index: int) -> int:
        """Bytes of the gradients that are made before the backward pass of a layer by those behind it."""
        return sum(self.gradients[index + 1 :])

    @contextmanager
    def marking_gradients(self, mark: Mark) -> Iterator[None]:
        """Within the block `mark` is called with `backward i/k` when layer i has made its k-th gradient."""

        def marker(index: int) -> Callable[[Tensor], None]:
            numbers = count(1)
            return lambda _: mark(f"backward {index}/{next(numbers)}")

        handles = []
        for index, layer in enumerate(self.layers):
            note = marker(index)
            for weight in layer.parameters():
                if weight.requires_grad:
                    handles.append(weight.register_post_accumulate_grad_hook(note))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def marking(self, mark: Mark) -> Iterator[None]:
        """Within the block `mark` is called with `forward i`, `end i` and `backward i` of layer i, and `rest`."""
        handles = []
        for index, layer in enumerate(self.layers):
            before, behind = self.hooks(index, mark)
            handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(layer.register_forward_hook(behind))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def hooks(self, index: int, mark: Mark) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            mark(f"forward {index}")
            hidden = next(iter((*args, *kwargs.values())), None)
            if isinstance(hidden, Tensor):
                self.note_input(index, hidden)
                if index == 0 and hidden.requires_grad:
                    hidden.register_hook(lambda _: mark("rest"))  # type: ignore[no-untyped-call]

        def behind(module: nn.Module, args: tuple[object, ...], result: object) -> None:
            hidden = result[0] if isinstance(result, tuple | list) else result
            if isinstance(hidden, Tensor) and hidden.requires_grad:
                hidden.register_hook(lambda _: begin_backward())  # type: ignore[no-untyped-call]
            mark(f"end {index}")

        def begin_backward() -> None:
            self.note_kept(index)
            mark(f"backward {index}")

        return before, behind

    def note_input(self, index: int, hidden: Tensor) -> None:
        storage = hidden.untyped_storage()
        self.inputs[index] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]

    def note_kept(self, index: int) -> None:
        """Called before the backward pass of a layer: is its input still there?"""
        storage, num_bytes = self.inputs[index]
        self.freed[index] = num_bytes if storage.expired() else 0  # type: ignore[no-untyped-call]

    def run(self, batch: Batch, mark: Mark, *, has_parts: bool = False) -> None:
        with self.marking(mark), self.marking_gradients(mark) if has_parts else nullcontext():
            self.step(batch)
        mark("finish")

    def forget_gradients(self) -> None:
        if not self.has_gradients:
            self.model.zero_grad(set_to_none=True)

    def bytes(self, batch: Batch, probe: Sequence[Treatment]) -> Bytes:
        with applied_treatments(self.stacks, probe):
            self.forget_gradients()
            device = next(self.model.parameters()).device
            phases = measure_phases(lambda mark: self.run(batch, mark, has_parts=True), device)
        values = {f"{phase.name} held": float(phase.held) for phase in phases}
        values |= {f"{phase.name} peak": float(phase.peak) for phase in phases}
        # While a layer's result is looked at, its caller still holds its input
        for start, stack in zip(self.starts, self.stacks, strict=True):
            last = start + len(stack) - 1
            values[f"end {last} held"] -= self.freed.get(last, 0)
        return values

    def seconds(self, batch: Batch, probe: Sequence[Treatment]) -> dict[str, float]:
        """When each mark was passed; on a CPU in processor time, which other processes change less."""
        passed: dict[str, float] = {}
        is_on_cuda = next(self.model.parameters()).device.type == "cuda"

        def mark(name: str) -> None:
            if is_on_cuda:
                torch.cuda.synchronize()
            passed[name] = time.perf_counter() if is_on_cuda else time.process_time() / torch.get_num_threads()

        with applied_treatments(self.stacks, probe):
            self.forget_gradients()
            self.run(batch, mark)
        return passed

    def surroundings(self, seen: Bytes) -> Surroundings:
        last = len(self.layers) - 1
        before = [0] * len(self.layers)
        for start in self.starts:
            former = seen[f"end {start - 1} held"] if start else 0.0
            before[start] = round(seen[f"forward {start} held"] - former)
        return Surroundings(
            before=tuple(before),
            later=tuple(self.later(index) for index in range(len(self.layers))),
            head=round(seen[f"end {last} peak"] - seen[f"end {last} held"]),
            floor=round(seen.get("rest peak", 0.0)),
        )


def _gradient_bytes(layer: nn.Module) -> int:
    return tensor_bytes(weight for weight in layer.parameters() if weight.requires_grad)


# -- probes ----------------------------------------------------------------------------------------------------------


def _build_probes(watch: _Watch, offered: Sequence[Treatment]) -> list[list[Treatment]]:
    """Plans in which every treatment on offer occurs in each stack, after a layer that hands on and after another."""
    pairs = [(before, treatment) for treatment in offered for before in (Treatment.KEEP, Treatment.REBUILD)]
    singles = [(treatment,) for treatment in offered]
    per_stack = []
    for stack in watch.stacks:
        units = pairs if len(stack) > 1 else singles
        width = max(1, len(stack) // len(units[0]))
        groups = [units[start : start + width] for start in range(0, len(units), width)]
        rows = [[treatment for unit in group for treatment in unit] for group in groups]
        per_stack.append([row + [Treatment.KEEP] * (len(stack) - len(row)) for row in rows])
    num_probes = max(map(len, per_stack))
    return [[t for rows in per_stack for t in rows[index % len(rows)]] for index in range(num_probes)]


@dataclass(frozen=True)
class _Stack:
    """The layers of one stack, in all probes."""

    watch: _Watch
    number: int
    probes: list[list[Treatment]]

    def costs(
        self, offered: Sequence[Treatment], seen: Sequence[Bytes], times: Sequence[Mapping[str, float]]
    ) -> tuple[TreatmentCost, ...]:
        seconds = {treatment: min(self.durations(treatment, times)) for treatment in offered}
        least = min(seconds.values())
        tick = max(max(seconds.values()) - least, 1e-9) / NUM_TICKS
        costs = []
        for treatment in offered:
            kept, working = self.memory(treatment, seen, Treatment.KEEP)
            after = self.memory(treatment, seen, Treatment.REBUILD)
            excess = round((seconds[treatment] - least) / tick) * tick
            costs.append(TreatmentCost(treatment, kept, working, excess, after))
        return tuple(costs)

    def places(self, treatment: Treatment, before: Treatment | None) -> Iterator[tuple[int, int]]:
        """Probe and layer where `treatment` stands, after `before` where that is given and the stack has two layers."""
        start, length = self.watch.starts[self.number], len(self.watch.stacks[self.number])
        for index, probe in enumerate(self.probes):
            for position in range(start if length == 1 else start + 1, start + length):
                if probe[position] is treatment and (length == 1 or before in (None, probe[position - 1])):
                    yield index, position

    def memory(self, treatment: Treatment, seen: Sequence[Bytes], before: Treatment) -> tuple[int, int]:
        """Bytes kept and at the worst moment, both above what is held as the layer begins."""
        kept, working = [], []
        for index, layer in self.places(treatment, before):
            values, held = seen[index], seen[index][f"forward {layer} held"]
            kept.append(values[f"end {layer} held" if self.is_last(layer) else f"forward {layer + 1} held"] - held)
            backward = values.get(f"backward {layer} peak", 0.0) - self.watch.later(layer)
            working.append(max(values[f"forward {layer} peak"], backward) - held)
        return round(max(kept)), round(max(working))

    def is_last(self, layer: int) -> bool:
        return layer + 1 in self.watch.starts or layer + 1 == len(self.watch.layers)

    def durations(self, treatment: Treatment, times: Sequence[Mapping[str, float]]) -> Iterator[float]:
        """Forward and backward seconds, wherever the treatment stood."""
        for index, layer in self.places(treatment, None):
            for passed in times[index :: len(self.probes)]:
                following = passed.get(f"backward {layer - 1}", passed.get("rest", passed["finish"]))
                yield passed[f"end {layer}"] - passed[f"forward {layer}"] + following - passed[f"backward {layer}"]
