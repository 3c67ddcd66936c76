"""The fastest treatment of every layer that fits a memory budget.

The backward pass frees layers from the last to the first. While it is at layer i, what layers 0 to i - 1 keep is held,
and whatever layer i needs at its worst moment; so the peak is the largest over i of those two together, and the same
treatments cost less memory where the layers that keep much come last. `choose_plan` knows that and is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.memory.plans import LayerPlan, Treatment

HANDING_ON = frozenset(treatment for treatment in Treatment if treatment.startswith("rebuild"))
"""Treatments whose result the next layer need not keep either, if it is one of them."""


@dataclass(frozen=True)
class TreatmentCost:
    """What one layer costs under one treatment.

    `kept` bytes are held between its forward and its backward pass; `working` bytes, `kept` included, at the worst
    moment of its backward pass; `seconds` are those beyond the fastest treatment. After a layer whose result can be
    rebuilt, the first two are `after_rebuilt`, where they differ.
    """

    treatment: Treatment
    kept: int
    working: int
    seconds: float
    after_rebuilt: tuple[int, int] | None = None

    def memory(self, former: Treatment | None) -> tuple[int, int]:
        """Bytes kept and working after a layer under treatment `former`."""
        if self.after_rebuilt is not None and former in HANDING_ON:
            return self.after_rebuilt
        return self.kept, self.working


@dataclass(frozen=True)
class Surroundings:
    """What a step holds besides its layers' activations, above what is there before it, in bytes.

    `before[i]` is kept since the layer before i (embeddings before the first); `later[i]` are gradients made before
    the backward pass of layer i; `head` is needed above all layers' activations between their forward and backward
    passes; `floor` is the peak of what no plan changes, the embeddings' gradient and the optimizer's step.
    """

    before: tuple[int, ...]
    later: tuple[int, ...]
    head: int = 0
    floor: int = 0


@dataclass(frozen=True)
class PlanForecast:
    """A plan and what it is expected to cost: bytes at the peak, seconds beyond the fastest plan."""

    plan: LayerPlan
    peak: int
    seconds: float


@dataclass(frozen=True)
class FrontierPoint:
    """The fastest plan for some budget: bytes at the peak, resident ones included, and seconds of a few rows' step."""

    plan: str
    peak: int
    seconds: float


@dataclass(frozen=True)
class PlanDecision:
    """What was chosen and why, in bytes of all that torch holds; plain values for run.json."""

    plan: str
    budget: int
    forecast: int
    measured: int
    resident: int
    seconds: float
    frontier: tuple[FrontierPoint, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Prefix:
    """The first layers under some treatments."""

    kept: int
    peak: int
    seconds: float
    costs: tuple[TreatmentCost, ...]

    def followed_by(self, cost: TreatmentCost, before: int, later: int) -> "_Prefix":
        kept, working = cost.memory(self.last)
        held = self.kept + before
        peak = max(self.peak, held + working + later)
        return _Prefix(held + kept, peak, self.seconds + cost.seconds, (*self.costs, cost))

    @property
    def last(self) -> Treatment | None:
        return self.costs[-1].treatment if self.costs else None

    def ended(self, head: int) -> "_Prefix":
        return _Prefix(self.kept, max(self.peak, self.kept + head), self.seconds, self.costs)


def choose_plan(
    costs: Sequence[Sequence[TreatmentCost]], budget: int, surroundings: Surroundings | None = None
) -> PlanForecast:
    """The fastest plan whose peak is at most `budget` bytes.

    `costs` holds for each layer, in the order of the forward pass, what it costs under each treatment on offer. Exact:
    a choice for the first layers is dropped only if another is no slower and keeps no more. Raises ValueError, with the
    least budget that would do, if nothing fits.
    """
    if not costs or not all(costs):
        raise ValueError("choose_plan: there must be at least one layer, and a treatment on offer for each")
    best = _least(costs, surroundings, lambda prefix: prefix.seconds, budget)
    if best is None:
        raise ValueError(
            f"no plan fits in {budget:,} bytes of activations; the least that any needs is "
            f"{least_peak(costs, surroundings):,}: raise the budget, or take a smaller micro-batch with more "
            "gradient_accumulation_steps"
        )
    return _forecast(best)


def least_peak(costs: Sequence[Sequence[TreatmentCost]], surroundings: Surroundings | None = None) -> int:
    """The least bytes at the peak of any plan."""
    least = _least(costs, surroundings, lambda prefix: prefix.peak)
    assert least is not None
    return least.peak


def forecast_plan(
    costs: Sequence[Sequence[TreatmentCost]], treatments: Sequence[Treatment], surroundings: Surroundings | None = None
) -> PlanForecast:
    """What a given plan is expected to cost."""
    only = [
        [cost for cost in options if cost.treatment is wanted]
        for options, wanted in zip(costs, treatments, strict=True)
    ]
    return choose_plan(only, 2**63, surroundings)


def _forecast(prefix: _Prefix) -> PlanForecast:
    return PlanForecast(LayerPlan(tuple(cost.treatment for cost in prefix.costs)), prefix.peak, prefix.seconds)


def _least(
    costs: Sequence[Sequence[TreatmentCost]],
    surroundings: Surroundings | None,
    price: Callable[[_Prefix], float],
    budget: float = math.inf,
) -> _Prefix | None:
    """The plan within the budget of the least price, which must not fall as layers are added."""
    around = surroundings or Surroundings(before=(0,) * len(costs), later=(0,) * len(costs))
    prefixes = [_Prefix(0, around.floor, 0.0, ())]
    for options, before, later in zip(costs, around.before, around.later, strict=True):
        useful = _useful(options)
        longer = [prefix.followed_by(cost, before, later) for prefix in prefixes for cost in useful]
        fitting = [prefix for prefix in longer if prefix.peak <= budget]
        prefixes = []
        # What the next layer costs depends on whether this one hands on
        for is_handing_on in (False, True):
            alike = [prefix for prefix in fitting if (prefix.last in HANDING_ON) is is_handing_on]
            prefixes.extend(_undominated(alike, price))
    ended = [prefix.ended(around.head) for prefix in prefixes]
    return min((prefix for prefix in ended if prefix.peak <= budget), key=price, default=None)


def _useful(costs: Sequence[TreatmentCost]) -> list[TreatmentCost]:
    """Those to which none that hands on alike is preferable in every respect, of equals the first."""
    prices = []
    for cost in costs:
        after = cost.after_rebuilt or (cost.kept, cost.working)
        prices.append((cost.kept, cost.working, *after, cost.seconds))
    useful = []
    for place, (cost, price) in enumerate(zip(costs, prices, strict=True)):
        others = [
            other
            for index, other in enumerate(prices)
            if (other != price or index < place)
            and (costs[index].treatment in HANDING_ON) is (cost.treatment in HANDING_ON)
        ]
        if not any(all(a <= b for a, b in zip(other, price, strict=True)) for other in others):
            useful.append(cost)
    return useful


def _undominated(prefixes: list[_Prefix], price: Callable[[_Prefix], float]) -> list[_Prefix]:
    """Without those that another one equals or betters in bytes kept and price."""
    front: list[_Prefix] = []
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.kept, price(prefix))):
        if not front or price(prefix) < price(front[-1]):
            front.append(prefix)
    return front
