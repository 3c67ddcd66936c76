"""A training within a memory budget: the plan is measured, chosen, checked by a real step, and changed if it fails.

What counts is what torch allocates: weights, their average, the optimizer's state, gradients and activations. A process
takes more: the interpreter and its libraries, and on CUDA the driver's own memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import nn

from components.memory.byte_sizes import format_closely
from components.memory.checkpointing import AppliedPlan, apply_plan
from components.memory.layer_costs import Batch, StepCosts, measure_costs
from components.memory.measuring import measure_memory, peak_bytes, tensor_bytes, without_collection
from components.memory.planner import (
    FrontierPoint,
    PlanDecision,
    PlanForecast,
    choose_plan,
    forecast_plan,
    least_peak,
)
from components.memory.plans import LayerPlan, Treatment, parse_plan
from components.memory.undoing import undone

SHARE_OF_FREE = {"cpu": 0.8, "cuda": 0.92}  # the rest is for the allocator's gaps and for others on the machine
NUM_FRONTIER = 16
NUM_CHECKS = 4  # real steps tried before the budget is given up
OFFERED = (
    Treatment.KEEP,
    Treatment.REBUILD,
    Treatment.REBUILD_ATTENTION,
    Treatment.REBUILD_WIDE,
    Treatment.REBUILD_WIDE_ATTENTION,
    Treatment.REBUILD_LINEAR,
    Treatment.REBUILD_SUMS,
    Treatment.SAVE_MATMULS,
    Treatment.SAVE_ATTENTION,
    Treatment.RECOMPUTE,
)
OFFERED_ON_CUDA = (*OFFERED, Treatment.OFFLOAD, Treatment.RECOMPUTE_OFFLOAD)


def free_bytes(device: torch.device, num_processes: int = 1) -> int:
    """What training may take on a device: of a GPU what is free or torch's already, of a CPU a process's share."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int((free + torch.cuda.memory_reserved(device)) * SHARE_OF_FREE["cuda"])
    return int(psutil.virtual_memory().available * SHARE_OF_FREE["cpu"]) // num_processes


@dataclass
class PlannedModel:
    """A model in training, and the plan on its layers."""

    model: nn.Module
    stacks: Sequence[nn.ModuleList]
    applied: list[AppliedPlan] = field(default_factory=list)

    @property
    def num_layers(self) -> int:
        return sum(map(len, self.stacks))

    def apply(self, plan: str) -> None:
        """Replace the plan by one that names the layers of all stacks, in the order in which they run."""
        self.remove()
        treatments = [piece.treatment for piece in parse_plan(plan).pieces(self.num_layers)]
        for stack in self.stacks:
            own, treatments = treatments[: len(stack)], treatments[len(stack) :]
            self.applied.append(apply_plan(stack, LayerPlan(tuple(own))))

    def remove(self) -> None:
        for applied in self.applied:
            applied.remove()
        self.applied = []


class MemoryPlanner:
    """Chooses the fastest plan for a step of `model` on `batch` within `budget` bytes.

    `forward_backward(batch)` runs one micro-step as training does. `also_held` bytes are a moving average's and the
    like; `has_gradients` says that a step has several micro-steps, and so finds gradients there. `offered` treatments
    are all that serve on the device, if nothing else is said.
    """

    def __init__(
        self,
        *,
        planned: PlannedModel,
        optimizer: torch.optim.Optimizer,
        forward_backward: Callable[[Batch], object],
        batch: Batch,
        budget: int,
        also_held: int = 0,
        has_gradients: bool = False,
        offered: Sequence[Treatment] | None = None,
    ) -> None:
        self.planned, self.optimizer, self.batch, self.budget = planned, optimizer, batch, budget
        self.forward_backward, self.has_gradients = forward_backward, has_gradients
        self.also_held = also_held
        self.device = next(planned.model.parameters()).device
        self.offered = offered or (OFFERED_ON_CUDA if self.device.type == "cuda" else OFFERED)
        self.costs: StepCosts | None = None
        self.resident = 0

    def choose(self) -> PlanDecision:
        """Measure, choose, try it in a real step; leaves the plan on the layers and everything else as it was.

        Raises ValueError, with the least budget that would do, where nothing fits.
        """
        with undone(self.planned.model, self.optimizer), without_collection():
            self.measure()
            return self._settle()

    def measure(self) -> None:
        """Find out what treatments cost and what is resident. Trains a few steps: see `lr_finder.undone`."""
        self.planned.remove()
        self.costs = measure_costs(
            self.planned.model,
            self.planned.stacks,
            self.forward_backward,
            self.batch,
            self.offered,
            has_gradients=self.has_gradients,
        )
        self.optimizer.step()
        update = measure_memory(self.optimizer.step, self.device)
        gradients = tensor_bytes([weight.grad for weight in self.planned.model.parameters()])
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        weights = [*self.planned.model.parameters(), *self.planned.model.buffers()]
        self.resident = tensor_bytes(weights) + tensor_bytes(state) + self.also_held
        if self.has_gradients:
            self.resident += gradients
        self.costs = self.costs.with_floor(update.peak + (0 if self.has_gradients else gradients))

    def forecast(self, plan: str) -> PlanForecast:
        """What a plan is expected to cost, with all that is resident."""
        assert self.costs is not None
        treatments = [piece.treatment for piece in parse_plan(plan).pieces(self.planned.num_layers)]
        return self._with_resident(forecast_plan(self.costs.layers, treatments, self.costs.surroundings))

    def fastest(self, budget: int) -> PlanForecast:
        """The fastest plan for a budget, by forecast; raises ValueError where nothing fits."""
        assert self.costs is not None
        least = least_peak(self.costs.layers, self.costs.surroundings) + self.resident
        if least > budget:
            raise ValueError(
                f"memory budget {format_closely(budget)}: the least that any plan needs is {format_closely(least)}, "
                f"{format_closely(self.resident)} of it for weights and what else stays; raise the budget, or take a "
                "smaller micro-batch with more gradient_accumulation_steps"
            )
        chosen = choose_plan(self.costs.layers, budget - self.resident, self.costs.surroundings)
        return self._with_resident(chosen)

    def frontier(self) -> tuple[FrontierPoint, ...]:
        """The fastest plans between the least budget that does and the least that needs no plan."""
        assert self.costs is not None
        least = least_peak(self.costs.layers, self.costs.surroundings) + self.resident
        most = self.forecast(f"keep*{self.planned.num_layers}").peak
        budgets = [least + (most - least) * index // (NUM_FRONTIER - 1) for index in range(NUM_FRONTIER)]
        found = [self.fastest(budget) for budget in budgets]
        points = {str(each.plan): FrontierPoint(str(each.plan), each.peak, each.seconds) for each in found}
        return tuple(points.values())

    def measured_peak(self, plan: str) -> int:
        """The peak of a real step on the whole batch under a plan, with all that is resident. Trains a step."""
        self.planned.apply(plan)
        self.planned.model.zero_grad(set_to_none=not self.has_gradients)
        peak = peak_bytes(self._whole_step, self.device)
        return peak + self.resident

    def _whole_step(self) -> None:
        self.forward_backward(self.batch)
        self.optimizer.step()
        self.planned.model.zero_grad(set_to_none=not self.has_gradients)

    def _settle(self) -> PlanDecision:
        """The fastest plan whose real peak is within the budget too."""
        limit = self.budget
        for _ in range(NUM_CHECKS):
            chosen = self.fastest(limit)
            measured = self._tried_peak(str(chosen.plan))
            if measured is not None and measured <= self.budget:
                return PlanDecision(
                    plan=str(chosen.plan),
                    budget=self.budget,
                    forecast=chosen.peak,
                    measured=measured,
                    resident=self.resident,
                    seconds=chosen.seconds,
                    frontier=self.frontier(),
                )
            excess = chosen.peak // 10 if measured is None else measured - self.budget
            limit = min(limit, chosen.peak) - max(excess, 1)
        taken = "more than there is" if measured is None else format_closely(measured)
        raise ValueError(
            f"memory budget {format_closely(self.budget)}: {chosen.plan} takes {taken} where "
            f"{format_closely(chosen.peak)} were forecast; raise the budget, or take a smaller micro-batch"
        )

    def _tried_peak(self, plan: str) -> int | None:
        """As `measured_peak`; None where the device did not have as much."""
        try:
            return self.measured_peak(plan)
        except torch.OutOfMemoryError:
            self.planned.model.zero_grad(set_to_none=not self.has_gradients)
            return None

    def _with_resident(self, forecast: PlanForecast) -> PlanForecast:
        return PlanForecast(forecast.plan, forecast.peak + self.resident, forecast.seconds)


class BudgetKeeper:
    """Keeps a training within its budget: chooses the plan, and another one where memory does not suffice after all."""

    def __init__(
        self, planner: MemoryPlanner, *, on_decision: Callable[[PlanDecision], None], agree: Callable[[str], str]
    ) -> None:
        """`agree(plan)` returns the first process's plan in every process."""
        self.planner, self.on_decision, self.agree = planner, on_decision, agree

    def begin(self, plan: str) -> str:
        """As `out_of_memory.MemoryKeeper.begin`; ValueError where no plan is within the budget."""
        if not plan:
            decision = self.planner.choose()
            plan = self.agree(decision.plan)
            self.on_decision(decision)
        self.planner.planned.apply(plan)
        return plan

    def reduce(self, plan: str) -> str | None:
        """As `out_of_memory.MemoryKeeper.reduce`: the fastest plan for nine tenths of what `plan` should have taken."""
        planner = self.planner
        if planner.costs is None:
            with undone(planner.planned.model, planner.optimizer), without_collection():
                planner.measure()
        try:
            chosen = str(planner.fastest(round(0.9 * planner.forecast(plan).peak)).plan)
        except ValueError:
            chosen = None
        planner.planned.apply(chosen or plan)
        return chosen
