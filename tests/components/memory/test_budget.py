"""Within a memory budget: what treatments cost is measured, forecasts hold, and measuring leaves no trace."""

import copy
import itertools

import pytest
import torch
from activation_stacks import build_bert

from components.memory.budget import BudgetKeeper, MemoryPlanner, PlannedModel
from components.memory.byte_sizes import format_bytes, format_closely, parse_bytes
from components.memory.measuring import Phase, measure_phases, without_collection
from components.memory.plans import Treatment
from components.memory.undoing import undone
from components.models.t5.checkpoint import T5Architecture, create_t5

KIB = 1024
OFFERED = (Treatment.KEEP, Treatment.REBUILD_SUMS, Treatment.RECOMPUTE)


@pytest.mark.parametrize(
    ("text", "size"), [("12GiB", 12 * 2**30), ("1.5 MiB", 3 * 2**19), ("800MB", 8 * 10**8), ("2TB", 2 * 10**12)]
)
def test_amounts_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["12", "GiB", "-1GiB", "0GiB", "1.2.3GiB", "12 gigabytes", "12GiBs", ""])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ValueError, match="is no amount of memory; needs a number above 0 and one of KiB, MiB"):
        parse_bytes(text)


def test_amounts_are_written():
    assert [format_bytes(3 * 10**9 // 2), format_bytes(2**20), format_bytes(None)] == ["1.5 GB", "1.0 MB", ""]
    sizes = (1_234_567_890, 12_345_678, 999_449_999, 1_000)
    assert [format_closely(size) for size in sizes] == ["1.235 GB", "12.35 MB", "999.4 MB", "1.000 kB"]


def test_phases_counted_by_hand():
    def step(mark):
        mark("first")
        x = torch.empty(256 * KIB, dtype=torch.uint8)
        del x
        mark("second")
        y = torch.empty(64 * KIB, dtype=torch.uint8)
        mark("third")
        return y

    assert measure_phases(step) == [
        Phase("first", 0, 256 * KIB),
        Phase("second", 0, 64 * KIB),
        Phase("third", 64 * KIB, 64 * KIB),
    ]


def build_planner(*, budget=2**40, has_gradients=False):
    model, stacks, _ = build_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = {"input_ids": torch.arange(1, 65).repeat(16, 1)}
    return MemoryPlanner(
        planned=PlannedModel(model, stacks),
        optimizer=optimizer,
        forward_backward=lambda batch: model(**batch).last_hidden_state.square().mean().backward(),
        batch=batch,
        budget=budget,
        has_gradients=has_gradients,
        offered=OFFERED,
    )


@pytest.mark.parametrize("has_gradients", [False, True])
def test_forecasts_hold_and_no_mixture_is_better(has_gradients):
    """Of three treatments on four layers, all 81 of them by forecast and some by measurement; for ten budgets."""
    planner = build_planner(has_gradients=has_gradients)
    with undone(planner.planned.model, planner.optimizer), without_collection():
        planner.measure()
        plans = [" ".join(treatments) for treatments in itertools.product(OFFERED, repeat=4)]
        forecasts = {plan: planner.forecast(plan) for plan in plans}
        for plan in plans[::10]:
            assert planner.measured_peak(plan) == pytest.approx(forecasts[plan].peak, rel=0.05), plan
        least, most = (end(forecast.peak for forecast in forecasts.values()) for end in (min, max))
        for budget in range(least, most + 1, (most - least) // 9):
            chosen = planner.fastest(budget)
            assert chosen.peak <= budget
            within = [forecast.seconds for forecast in forecasts.values() if forecast.peak <= budget]
            assert chosen.seconds <= min(within) + 1e-9
        assert planner.measured_peak(str(chosen.plan)) == pytest.approx(chosen.peak, rel=0.05)


def test_choosing_leaves_no_trace_but_the_plan():
    planner = build_planner()
    model = planner.planned.model
    before = copy.deepcopy(model.state_dict()), torch.get_rng_state(), copy.deepcopy(planner.optimizer.state_dict())
    planner.budget = 0
    with pytest.raises(ValueError, match=r"memory budget \d+ B: the least that any plan needs is \d+\.\d+ MB"):
        planner.choose()
    planner.budget = planner.forecast("recompute*4").peak + 300_000
    decision = planner.choose()
    assert decision.measured <= decision.budget
    assert decision.plan != "keep*4"
    peaks = [point.peak for point in decision.frontier]
    assert peaks == sorted(set(peaks))
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[1])
    assert planner.optimizer.state_dict() == before[2]
    assert all(weight.grad is None for weight in model.parameters())
    assert all("forward" in vars(layer) for layer in list(model.encoder.layer)[:1])


def test_two_stacks_share_a_budget():
    torch.manual_seed(0)
    model = create_t5(T5Architecture(90, 64, 16, 96, 4, 4, 4, dropout=0.1), head="seq2seq").train()
    ids = torch.randint(3, 90, (8, 40))
    planner = MemoryPlanner(
        planned=PlannedModel(model, model.layer_stacks),
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3),
        forward_backward=lambda batch: model(**batch).loss.backward(),
        batch={"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids},
        budget=2**40,
        offered=(*OFFERED, Treatment.REBUILD),
    )
    with undone(model, planner.optimizer), without_collection():
        planner.measure()
        for plan in ("recompute*8", "recompute*3 keep*2 rebuild*3", "keep*8", "rebuild*4 recompute*4"):
            assert planner.measured_peak(plan) == pytest.approx(planner.forecast(plan).peak, rel=0.1), plan


def test_a_recorded_plan_is_put_to_work_unmeasured():
    planner = build_planner()
    decisions = []
    keeper = BudgetKeeper(planner, on_decision=decisions.append, agree=lambda plan: plan)
    assert keeper.begin("recompute*2 keep*2") == "recompute*2 keep*2"
    assert (planner.costs, decisions) == (None, [])
    layers = list(planner.planned.model.encoder.layer)
    assert ["forward" in vars(layer) for layer in layers] == [True, True, False, False]
    # That did not fit after all
    reduced = keeper.reduce("keep*4")
    assert planner.forecast(reduced).peak <= 0.9 * planner.forecast("keep*4").peak
    assert keeper.reduce("recompute*4") is None


def test_a_plan_that_the_device_refuses_gives_way_to_a_smaller_one(monkeypatch):
    planner = build_planner()
    measure, refused = planner.measured_peak, []

    def refuse_once(plan):
        if not refused:
            refused.append(plan)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measure(plan)

    monkeypatch.setattr(planner, "measured_peak", refuse_once)
    with undone(planner.planned.model, planner.optimizer), without_collection():
        planner.measure()
        planner.budget = planner.forecast("keep*4").peak
        decision = planner._settle()
    assert decision.forecast <= 0.9 * planner.forecast(refused[0]).peak + 1
