"""The fastest treatment of every layer that fits a memory budget.

The backward pass frees layers from the last to the first. While it is at layer i, what layers 0 to i - 1 keep is held,
and whatever layer i needs at its worst moment; so the peak is the largest over i of those two together, and the same
treatments cost less memory where the layers that keep much come last. `choose_plan` knows that and is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.training.activation_plans import LayerPlan, Treatment


@dataclass(frozen=True)
class TreatmentCost:
    """What one layer costs under one treatment.

    `kept` bytes are held between its forward and its backward pass; `working` bytes, `kept` included, at the worst
    moment of its backward pass; `seconds` are those beyond treatment keep.
    """

    treatment: Treatment
    kept: int
    working: int
    seconds: float


@dataclass(frozen=True)
class PlanForecast:
    """A plan and what it is expected to cost: bytes of activations at the peak, seconds beyond no plan."""

    plan: LayerPlan
    peak: int
    seconds: float


@dataclass(frozen=True)
class _Prefix:
    """The first layers under some treatments."""

    kept: int
    peak: int
    seconds: float
    costs: tuple[TreatmentCost, ...]

    def followed_by(self, cost: TreatmentCost) -> "_Prefix":
        peak = max(self.peak, self.kept + cost.working)
        return _Prefix(self.kept + cost.kept, peak, self.seconds + cost.seconds, (*self.costs, cost))


def choose_plan(costs: Sequence[Sequence[TreatmentCost]], budget: int) -> PlanForecast:
    """The fastest plan whose peak is at most `budget` bytes.

    `costs` holds for each layer, in the order of the forward pass, what it costs under each treatment on offer. Exact:
    a choice for the first layers is dropped only if another is no slower and keeps no more. Raises ValueError, with the
    least budget that would do, if nothing fits.
    """
    if not costs or not all(costs):
        raise ValueError("choose_plan: there must be at least one layer, and a treatment on offer for each")
    best = _least(costs, lambda prefix: prefix.seconds, budget)
    if best is None:
        least = _least(costs, lambda prefix: prefix.peak)
        assert least is not None
        raise ValueError(
            f"no plan fits in {budget:,} bytes of activations; the least that any needs is {least.peak:,}: "
            "raise the budget, or take a smaller micro-batch with more gradient_accumulation_steps"
        )
    return PlanForecast(LayerPlan(tuple(cost.treatment for cost in best.costs)), best.peak, best.seconds)


def _least(
    costs: Sequence[Sequence[TreatmentCost]], price: Callable[[_Prefix], float], budget: float = math.inf
) -> _Prefix | None:
    """The plan within the budget of the least price, which must not fall as layers are added."""
    prefixes = [_Prefix(0, 0, 0.0, ())]
    for options in costs:
        longer = [prefix.followed_by(cost) for prefix in prefixes for cost in options]
        prefixes = _undominated([prefix for prefix in longer if prefix.peak <= budget], price)
    return min(prefixes, key=price, default=None)


def _undominated(prefixes: list[_Prefix], price: Callable[[_Prefix], float]) -> list[_Prefix]:
    """Without those that another one equals or betters in bytes kept and price."""
    front: list[_Prefix] = []
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.kept, price(prefix))):
        if not front or price(prefix) < price(front[-1]):
            front.append(prefix)
    return front
