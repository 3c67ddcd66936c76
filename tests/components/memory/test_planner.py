"""The planner of activation memory against every plan there is."""

import itertools
import random

import pytest

from components.memory.planner import TreatmentCost, choose_plan
from components.memory.plans import Treatment

OFFERED = [Treatment.KEEP, Treatment.REBUILD, Treatment.RECOMPUTE]


def draw_costs(generator, num_layers, *, is_uniform):
    def draw():
        kept = sorted((generator.randint(1, 60) for _ in OFFERED), reverse=True)
        times = [0.0, *sorted(generator.randint(0, 9) / 4 for _ in OFFERED[1:])]
        return [
            TreatmentCost(treatment, size, kept[0] + generator.randint(0, 9), seconds)
            for treatment, size, seconds in zip(OFFERED, kept, times, strict=True)
        ]

    return [draw()] * num_layers if is_uniform else [draw() for _ in range(num_layers)]


def every_plan(costs):
    """(seconds, peak) of each plan, the peak by walking the backward pass."""
    for plan in itertools.product(*costs):
        held = sum(cost.kept for cost in plan)
        peak = 0
        for cost in reversed(plan):
            held -= cost.kept
            peak = max(peak, held + cost.working)
        yield sum(cost.seconds for cost in plan), peak, tuple(cost.treatment for cost in plan)


@pytest.mark.parametrize("is_uniform", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_no_plan_within_the_budget_is_better(seed, is_uniform):
    costs = draw_costs(random.Random(seed), 5, is_uniform=is_uniform)
    plans = list(every_plan(costs))
    least = min(peak for _, peak, _ in plans)
    most = max(peak for _, peak, _ in plans)
    for budget in range(least, most + 2, max(1, (most - least) // 12)):
        forecast = choose_plan(costs, budget)
        assert (forecast.seconds, forecast.peak, forecast.plan.treatments) in plans
        assert forecast.peak <= budget
        assert forecast.seconds == min(seconds for seconds, peak, _ in plans if peak <= budget)
    with pytest.raises(ValueError, match=f"no plan fits in {least - 1} bytes .* any needs is {least}: raise"):
        choose_plan(costs, least - 1)


def test_layers_that_keep_much_come_last():
    layer = [TreatmentCost(Treatment.KEEP, 10, 11, 0.0), TreatmentCost(Treatment.RECOMPUTE, 1, 11, 1.0)]
    forecast = choose_plan([layer] * 12, 40)
    assert str(forecast.plan) == "recompute*9 keep*3"
    assert (forecast.peak, forecast.seconds) == (40, 9.0)


def test_many_layers_and_treatments_are_solved_at_once():
    sizes = [(18, 0.0), (10, 2.0), (6, 12.0), (3, 22.0), (2, 26.0), (1, 30.0)]
    layer = [
        TreatmentCost(treatment, size, 20, seconds)
        for treatment, (size, seconds) in zip(Treatment, sizes, strict=False)
    ]
    alike = 47 * 6 + 20  # the peak of rebuild_wide throughout
    forecast = choose_plan([layer] * 48, alike)
    assert forecast.peak <= alike
    assert forecast.seconds < 48 * 12.0


def test_nothing_to_choose_from():
    with pytest.raises(ValueError, match="at least one layer"):
        choose_plan([], 100)
