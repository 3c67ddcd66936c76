"""Schedules, with the factor of every step written out, and the seams that their ancestors had."""

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from components.optim.adafactor.optimizer import Adafactor
from components.optim.schedules import (
    Stage,
    apply_schedule,
    build_constant,
    build_cosine,
    build_inverse_sqrt,
    build_linear,
    build_multi_stage,
)

HALF_ROOT = math.sqrt(0.5)
BUILDERS = {
    "constant": lambda n, w: build_constant(num_steps=n, num_warmup_steps=w),
    "linear": lambda n, w: build_linear(num_steps=n, num_warmup_steps=w, final_factor=0.0),
    "cosine": lambda n, w: build_cosine(num_steps=n, num_warmup_steps=w, final_factor=0.0),
    "inverse_sqrt": lambda n, w: build_inverse_sqrt(num_steps=n, num_warmup_steps=w, time_scale=max(1, w)),
}
WRITTEN_OUT = {
    "constant": (build_constant(num_steps=6, num_warmup_steps=4), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
    "constant without warm-up": (build_constant(num_steps=3, num_warmup_steps=0), [1, 1, 1, 1]),
    "linear": (
        build_linear(num_steps=9, num_warmup_steps=4, final_factor=0.0),
        [0.25, 0.5, 0.75, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0],
    ),
    "linear to a tenth": (
        build_linear(num_steps=4, num_warmup_steps=1, final_factor=0.1),
        [1, 1, 0.7, 0.4, 0.1, 0.1],
    ),
    "cosine": (
        build_cosine(num_steps=6, num_warmup_steps=2, final_factor=0.0),
        [0.5, 1, 1, (1 + HALF_ROOT) / 2, 0.5, (1 - HALF_ROOT) / 2, 0, 0],
    ),
    "cosine without warm-up to a half": (
        build_cosine(num_steps=3, num_warmup_steps=0, final_factor=0.5),
        [1, 0.875, 0.625, 0.5, 0.5],
    ),
    "inverse_sqrt": (
        build_inverse_sqrt(num_steps=12, num_warmup_steps=2, time_scale=3),
        [0.5, 1, *(math.sqrt(3 / (3 + i)) for i in range(9)), 0.5],
    ),
    "all warm-up": (build_cosine(num_steps=2, num_warmup_steps=2, final_factor=0.25), [0.5, 1, 0.25, 0.25]),
    "one step": (build_linear(num_steps=1, num_warmup_steps=0, final_factor=0.0), [1, 0, 0]),
    "warm-up, plateau, fall": (
        build_multi_stage(
            stages=[
                Stage(2, build_constant(num_steps=2, num_warmup_steps=2)),
                Stage(3, build_constant(num_steps=3, num_warmup_steps=0)),
                Stage(4, build_linear(num_steps=4, num_warmup_steps=0, final_factor=0.0)),
            ]
        ),
        [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0],
    ),
    "two warm restarts": (
        build_multi_stage(stages=[Stage(2, build_linear(num_steps=2, num_warmup_steps=0, final_factor=0.0))] * 2),
        [1, 0.5, 1, 0.5, 0, 0],
    ),
}


def build_optimizer(lr=1e-3):
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.zeros(2)
    return torch.optim.SGD([param], lr=lr)


@pytest.mark.parametrize(("schedule", "expected"), WRITTEN_OUT.values(), ids=WRITTEN_OUT.keys())
def test_factor_of_every_step(schedule, expected):
    assert [schedule(step) for step in range(len(expected))] == pytest.approx(expected, rel=1e-15, abs=1e-16)


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_warm_up_ends_and_the_curve_starts_at_exactly_one(build):
    for num_steps in range(2, 400, 7):
        for num_warmup_steps in {1, num_steps // 10 or 1, num_steps // 3 or 1}:
            schedule = build(num_steps, num_warmup_steps)
            assert schedule(num_warmup_steps - 1) == schedule(num_warmup_steps) == 1.0


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
@pytest.mark.parametrize("num_steps", [*range(1, 31), 200])
def test_short_runs_divide_by_no_zero_and_waste_no_step(build, num_steps):
    """The ancestor's LinearLR(total=int(0.1 * n)) divided by zero for n = 10 … 19."""
    factors = [build(num_steps, int(0.1 * num_steps))(step) for step in range(num_steps)]
    assert max(factors) == 1.0
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("num_steps", [20, 200])
def test_first_step_is_not_doubled_and_the_seam_not_overshot(num_steps):
    """The ancestor's MultiStageScheduler began with two steps at once (0.053 for a 20-step warm-up from 1e-4) and
    passed the base rate at the seam (1.0069 for 20 steps, 1.0001 for 200), as its stages multiplied the last rate.
    """
    num_warmup_steps = num_steps // 10
    num_rest = num_steps - num_warmup_steps
    joined = build_multi_stage(
        stages=[
            Stage(num_warmup_steps, build_constant(num_steps=num_warmup_steps, num_warmup_steps=num_warmup_steps)),
            Stage(num_rest, build_cosine(num_steps=num_rest, num_warmup_steps=0, final_factor=0.0)),
        ]
    )
    optimizer = build_optimizer(lr=3e-4)
    whole = build_cosine(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=0.0)
    rates = []
    for step in range(num_steps):
        apply_schedule(optimizer, joined(step))
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [3e-4 * whole(step) for step in range(num_steps)]
    assert rates[0] == 3e-4 / num_warmup_steps
    assert max(rates) == rates[num_warmup_steps - 1] == rates[num_warmup_steps] == 3e-4
    assert rates[num_warmup_steps:] == sorted(rates[num_warmup_steps:], reverse=True)


def test_a_step_does_not_depend_on_the_steps_asked_before():
    schedule, _ = WRITTEN_OUT["warm-up, plateau, fall"]
    forward = [schedule(step) for step in range(12)]
    assert [schedule(step) for step in reversed(range(12))] == forward[::-1]


def test_cosine_is_torchs_closed_form():
    optimizer = build_optimizer(lr=1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    schedule = build_cosine(num_steps=50, num_warmup_steps=0, final_factor=0.1)
    for step in range(51):
        assert scheduler.get_last_lr()[0] == pytest.approx(schedule(step), rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_serves_as_lambda_of_torchs_scheduler(build):
    """LambdaLR asks for step num_steps too, after the last optimizer step."""
    schedule = build(10, 3)
    optimizer, by_hand = build_optimizer(), build_optimizer()
    scheduler = LambdaLR(optimizer, schedule)
    for step in range(10):
        apply_schedule(by_hand, schedule(step))
        assert optimizer.param_groups[0]["lr"] == by_hand.param_groups[0]["lr"] == 1e-3 * schedule(step)
        optimizer.step()
        scheduler.step()


def test_apply_scales_every_group_by_its_own_rate():
    params = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": params[0]}, {"params": params[1], "lr": 0.5}], lr=0.25)
    for factor in (0.5, 0.0, 1.0, 0.5):
        apply_schedule(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.25 * factor, 0.5 * factor]
        assert [group["initial_lr"] for group in optimizer.param_groups] == [0.25, 0.5]


def test_resuming_needs_only_the_optimizers_state_and_the_step():
    schedule = build_cosine(num_steps=20, num_warmup_steps=4, final_factor=0.0)
    first, resumed = build_optimizer(), build_optimizer(lr=123.0)
    for step in range(10):
        apply_schedule(first, schedule(step))
    resumed.load_state_dict(first.state_dict())
    apply_schedule(resumed, schedule(10))
    assert resumed.param_groups[0]["lr"] == 1e-3 * schedule(10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps=0 must be a whole number, 1 or more"),
        ({"num_steps": 10.0}, "num_steps=10.0 must be a whole number"),
        ({"num_warmup_steps": -1}, "num_warmup_steps=-1 must be a whole number, 0 or more"),
        ({"num_warmup_steps": 11}, "num_warmup_steps=11 exceeds num_steps=10; shorten the warm-up"),
        ({"final_factor": 1.5}, r"final_factor=1.5 must lie in \[0, 1\]"),
        ({"final_factor": math.nan}, "final_factor=nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_cosine(**{"num_steps": 10, "num_warmup_steps": 2, "final_factor": 0.0, **arguments})


def test_wrong_stages_and_time_scales_are_refused():
    with pytest.raises(ValueError, match="stages is empty"):
        build_multi_stage(stages=[])
    with pytest.raises(ValueError, match=r"stages\[1\].num_steps=0"):
        build_multi_stage(stages=[Stage(1, lambda _: 1.0), Stage(0, lambda _: 1.0)])
    with pytest.raises(ValueError, match="time_scale=0 must be a whole number, 1 or more"):
        build_inverse_sqrt(num_steps=10, num_warmup_steps=0, time_scale=0)


@pytest.mark.parametrize("factor", [-0.1, math.inf, math.nan])
def test_apply_refuses_a_factor_that_is_none(factor):
    optimizer = build_optimizer()
    with pytest.raises(ValueError, match="cannot scale a rate"):
        apply_schedule(optimizer, factor)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_apply_refuses_an_optimizer_that_makes_its_own_rate():
    """transformers' AdafactorSchedule writes 0.0 there, and nothing trains."""
    optimizer = Adafactor([nn.Parameter(torch.ones(2))], relative_step=True)
    with pytest.raises(ValueError, match=r"group 0 has lr=None.*relative_step=False"):
        apply_schedule(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] is None


def test_an_external_rate_is_neither_zeroed_nor_compounded():
    """transformers' AdafactorSchedule over an external rate: its default writes 0.0 into the groups, nothing trains;
    with initial_lr=1e-3 the rate, scaled by the first tensor and read back, falls to 5e-9 in four steps.
    """
    param = nn.Parameter(torch.full((8, 8), 0.05, dtype=torch.float64))
    optimizer = Adafactor([param], lr=1e-3, relative_step=False, scale_parameter=True)
    schedule = build_constant(num_steps=4, num_warmup_steps=2)
    applied = []
    for step in range(4):
        scale = float(param.detach().square().mean().sqrt())
        param.grad = torch.ones_like(param)
        apply_schedule(optimizer, schedule(step))
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 1e-3 * schedule(step)
        assert optimizer.effective_lrs()[0].value == pytest.approx(1e-3 * schedule(step) * scale, rel=1e-12)
        applied.append(optimizer.effective_lrs()[0].value)
    assert applied == pytest.approx([2.5e-5, 5e-5, 5e-5, 5e-5], rel=5e-3)


def test_a_schedule_asks_nothing_of_the_optimizers_state():
    """transformers' AdafactorSchedule reads the first parameter's: after a backward pass and before the first step it
    fails with KeyError 'step', and where that parameter is frozen, with a rate too few for the groups.
    """
    frozen, trained, other = (nn.Parameter(torch.ones(4, 4)) for _ in range(3))
    frozen.requires_grad_(False)
    groups = [{"params": [frozen, trained]}, {"params": [other], "lr": 1e-2}]
    optimizer = Adafactor(groups, lr=1e-3, relative_step=False)
    (trained.square().sum() + other.square().sum()).backward()
    apply_schedule(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-3]
    optimizer.step()
    assert [(rate.group_index, rate.param_index) for rate in optimizer.effective_lrs()] == [(0, 1), (1, 0)]
    assert [torch.equal(p, torch.ones(4, 4)) for p in (frozen, trained, other)] == [True, False, False]
