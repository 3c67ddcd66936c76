"""The rate sweep: it finds where a known problem turns, and a training after it is the training without it."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from components.models.shared.output import ModelOutput
from components.optim.adafactor.optimizer import Adafactor
from components.seeding import collect_random_states, seed_everything
from components.training.lr_finder import find_lr


class Noisy(nn.Module):
    """Dropout, running statistics and a frozen part in evaluation mode: all that a sweep could leave a trace in."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.frozen = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).requires_grad_(False)
        self.head = nn.Linear(8, 3)
        self.register_buffer("num_calls", torch.zeros(()), persistent=False)

    def forward(self, inputs, labels):
        self.num_calls += 1
        logits = self.head(self.frozen(self.body(inputs)))
        return ModelOutput(logits, nn.functional.cross_entropy(logits, labels))


class Bowl(nn.Module):
    """loss = x^2 / 2 + 1: gradient descent converges below a rate of 2 and diverges above it, whatever the data."""

    def __init__(self, start=100.0):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, offset):
        return ModelOutput(self.x, (self.x.square() / 2 + 1 + offset).sum())


def build_batches(num_batches=6):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "inputs": torch.randn(5, 4, generator=generator),
            "labels": torch.randint(0, 3, (5,), generator=generator),
        }
        for _ in range(num_batches)
    ]


def draw_batches():
    """A loader that augments: it draws from every global generator."""
    while True:
        shift = torch.rand(()) + random.random() + np.random.rand()
        for batch in build_batches(1):
            yield {"inputs": batch["inputs"] + shift, "labels": batch["labels"]}


OPTIMIZERS = {
    "adafactor": lambda groups: Adafactor(groups, lr=1e-2, relative_step=False, beta1=0.9, weight_decay=0.1),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, amsgrad=True),
    "adamw_fused": lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
}


def build_training(name):
    seed_everything(3)
    model = Noisy().train()
    model.frozen.eval()
    groups = [{"params": model.body.parameters()}, {"params": model.head.parameters(), "lr": 1e-1}]
    return model, OPTIMIZERS[name](groups)


def train(model, optimizer, num_steps):
    for _, batch in zip(range(num_steps), draw_batches(), strict=False):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()


def everything(model, optimizer):
    """All that a next step could depend on, as one flat dictionary."""
    found = {f"random.{key}": value for key, value in collect_random_states().items()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = tensor.detach().clone()
        found[f"{name}.grad"] = None if tensor.grad is None else tensor.grad.clone()
    for name, module in model.named_modules():
        found[f"{name}.training"] = module.training
    content = optimizer.state_dict()
    for index, state in content["state"].items():
        found |= {f"state.{index}.{key}": copy.deepcopy(value) for key, value in state.items()}
    for index, group in enumerate(content["param_groups"]):
        found |= {f"group.{index}.{key}": value for key, value in group.items()}
    return found


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        other = second[key]
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype, key
            # NaN stands for a generator without a cached number.
            assert torch.equal(value.nan_to_num(7), other.nan_to_num(7)), key
        else:
            assert value == other, key


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("num_former_steps", [0, 3])
def test_training_after_the_finder_is_training_without_it(name, num_former_steps):
    """At the start, where the optimizer has no state yet, and in the middle of a training."""
    plain = build_training(name)
    train(*plain, num_former_steps)
    train(*plain, 4)
    expected = everything(*plain)

    swept = build_training(name)
    train(*swept, num_former_steps)
    before = everything(*swept)
    curve = find_lr(*swept, draw_batches(), start_lr=1e-4, end_lr=1.0, num_steps=12)
    assert len(curve.lrs) == 12
    assert_same_bits(everything(*swept), before)
    train(*swept, 4)
    assert_same_bits(everything(*swept), expected)


def test_an_error_in_the_middle_leaves_no_trace_either():
    model, optimizer = build_training("adafactor")
    train(model, optimizer, 2)
    before = everything(model, optimizer)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        find_lr(model, optimizer, [*build_batches(3), {"inputs": torch.ones(2, 9), "labels": torch.zeros(2).long()}])
    assert_same_bits(everything(model, optimizer), before)


def test_each_loss_belongs_to_the_step_before_it():
    """Written out: x falls by lr * x, so every loss follows from the rates so far."""
    model = Bowl(3.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    batches = [{"offset": torch.tensor([value], dtype=torch.float64)} for value in (0.0, 1.0, 2.0)]
    curve = find_lr(model, optimizer, batches, start_lr=0.01, end_lr=1.0, num_steps=5, max_grad_norm=None)
    assert curve.lrs == pytest.approx([0.01, 0.01 * 10**0.5, 0.1, 0.1 * 10**0.5, 1.0], rel=1e-12)
    x, expected = 3.0, []
    for lr, offset in zip(curve.lrs, (1.0, 2.0, 0.0, 1.0, 2.0), strict=True):  # the first batch gave first_loss
        x -= lr * x
        expected.append(x**2 / 2 + 1 + offset)
    assert curve.losses == pytest.approx(expected, rel=1e-12)
    assert curve.first_loss == 5.5
    assert not curve.has_diverged


def test_a_bowl_is_left_above_its_critical_rate():
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batches = [{"offset": torch.zeros(1, dtype=torch.float64)}]
    curve = find_lr(model, optimizer, batches, start_lr=1e-4, end_lr=100.0, num_steps=200, max_grad_norm=None)
    assert curve.has_diverged
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) < 200
    assert 2.0 < curve.lrs[-1] < 20.0
    assert curve.steepest_lr < curve.best_lr < 2.0
    assert curve.steepest_lr in curve.lrs
    assert min(curve.smoothed) == curve.smoothed[curve.lrs.index(curve.best_lr)]


def test_a_loss_that_never_falls_suggests_nothing():
    model = Bowl(0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    curve = find_lr(model, optimizer, [{"offset": torch.zeros(1, dtype=torch.float64)}], num_steps=10)
    assert curve.losses == (1.0,) * 10
    assert (curve.steepest_lr, curve.best_lr) == (None, None)


def test_a_loss_that_is_no_number_ends_the_sweep_and_is_not_on_the_curve():
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    offsets = [0.0, 0.0, 0.0, math.inf]
    batches = [{"offset": torch.tensor([offset], dtype=torch.float64)} for offset in offsets]
    curve = find_lr(model, optimizer, batches, num_steps=10)
    assert curve.has_diverged
    assert len(curve.losses) == 2
    with pytest.raises(ValueError, match="the loss is inf before the first step; look at the data"):
        find_lr(model, optimizer, batches[::-1], num_steps=10)


def test_groups_keep_their_ratio_and_the_base_rate_is_the_one_on_the_curve():
    model = Bowl(3.0)
    second = nn.Parameter(torch.ones(1))
    seen = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    optimizer = Watching([{"params": [model.x], "lr": 0.5}, {"params": [second], "lr": 5.0}])
    batches = [{"offset": torch.zeros(1, dtype=torch.float64)}]
    curve = find_lr(model, optimizer, batches, base_lr=0.5, start_lr=1e-3, end_lr=1e-1, num_steps=3)
    assert seen == [pytest.approx([lr, 10 * lr], rel=1e-12) for lr in curve.lrs]
    seen.clear()
    find_lr(model, optimizer, batches, start_lr=1e-3, end_lr=1e-1, num_steps=3)
    assert seen == [pytest.approx([lr / 10, lr], rel=1e-12) for lr in curve.lrs]
    assert [group.keys() & {"initial_lr"} for group in optimizer.param_groups] == [set(), set()]


def test_gradients_are_clipped_as_in_training():
    model = Bowl(1000.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = [{"offset": torch.zeros(1, dtype=torch.float64)}]
    curve = find_lr(model, optimizer, batches, start_lr=0.5, end_lr=1.0, num_steps=2)
    assert curve.losses == pytest.approx([(1000 - 0.5) ** 2 / 2 + 1, (1000 - 1.5) ** 2 / 2 + 1], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_lr": 0.0}, r"start_lr=0.0 and end_lr=1.0 make no sweep"),
        ({"start_lr": 2.0}, r"start_lr=2.0 and end_lr=1.0 make no sweep"),
        ({"num_steps": 1}, "num_steps=1 makes no curve"),
        ({"base_lr": 0.0}, r"base_lr=0.0 cannot be scaled"),
        ({"batches": []}, "batches is empty"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    model, optimizer = build_training("sgd")
    with pytest.raises(ValueError, match=message):
        find_lr(model, optimizer, **{"batches": build_batches(), **arguments})


def test_an_optimizer_that_makes_its_own_rate_is_refused():
    model = Bowl()
    with pytest.raises(ValueError, match=r"no rate to sweep.*relative_step=False"):
        find_lr(model, Adafactor(model.parameters()), [{"offset": torch.zeros(1)}])
