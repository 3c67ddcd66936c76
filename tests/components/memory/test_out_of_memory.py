"""A step for which memory does not suffice begins again: with another plan, then with smaller micro-batches."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from activation_stacks import Residual
from loop_parts import Rows, Watcher, bits, collate, save
from torch import nn

from components.memory.out_of_memory import divide_batch, divide_window
from components.models.shared.output import ModelOutput
from components.optim.schedules import build_cosine
from components.training.checkpoint import list_steps, read_json
from components.training.loop import Interrupted, LoopSettings, TrainingLoop

SETTINGS = LoopSettings(num_steps=12, batch_size=8, gradient_accumulation_steps=2, seed=3, checkpoint_every_steps=5)


class Limited(nn.Module):
    """Normalises over the batch and drops out; on a device on which `room` rows fit, fewer where layers keep all."""

    def __init__(self, room, dropout):
        super().__init__()
        self.first, self.room, self.plan = nn.Linear(4, 8), room, "keep"
        self.layers = nn.ModuleList([Residual(8)])
        self.layers[0].dropout.p = dropout
        self.last = nn.Linear(8, 3)
        self.num_refused = 0

    def forward(self, inputs, labels):
        hidden = self.first(inputs)
        for layer in self.layers if len(inputs) > 1 else ():  # one row has no variance
            hidden = layer(hidden)
        if len(inputs) > self.room.get(self.plan, 0):
            self.num_refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits = self.last(hidden)
        return ModelOutput(logits, nn.functional.cross_entropy(logits, labels))


class Keeper:
    """Knows two plans."""

    def __init__(self, model):
        self.model = model

    def begin(self, plan):
        self.model.plan = plan or "keep"
        return self.model.plan

    def reduce(self, plan):
        if plan == "recompute":
            return None
        self.model.plan = "recompute"
        return "recompute"


def train(folder, room, settings=SETTINGS, *, has_keeper=False, dropout=0.5, watcher=None):
    torch.manual_seed(7)
    model = Limited(room, dropout)
    loop = TrainingLoop(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        schedule=build_cosine(num_steps=settings.num_steps, num_warmup_steps=3, final_factor=0.0),
        data=Rows(48),
        collate=collate,
        evaluate=None,
        save_model=save,
        settings=settings,
        folder=folder,
        observer=watcher or Watcher(),
    )
    loop.memory = Keeper(model) if has_keeper else None
    return model, loop.run(), loop.observer


def test_another_plan_changes_nothing_but_memory(tmp_path):
    plain, _, watcher = train(tmp_path / "plain", {"keep": 8})
    assert watcher.notes == []
    model, progress, watcher = train(tmp_path / "planned", {"recompute": 8}, has_keeper=True)
    assert watcher.notes == [(0, "out of memory at step 1; layers keep less: recompute")]
    assert (model.num_refused, progress.activation_plan, progress.num_parts) == (1, "recompute", 1)
    # To the bit, random masks and the norm's statistics included: the step that failed left no trace
    assert all(torch.equal(a, b) for a, b in zip(bits(model).values(), bits(plain).values(), strict=True))


def test_micro_batches_are_halved_until_they_fit(tmp_path):
    model, progress, watcher = train(tmp_path, {"recompute": 3}, has_keeper=True)
    assert [text.split("; ")[1] for _, text in watcher.notes] == [
        "layers keep less: recompute",
        "micro-batches go in 2 parts, the batch stays as it was",
        "micro-batches go in 4 parts, the batch stays as it was",
    ]
    assert (model.num_refused, progress.num_parts, progress.step) == (3, 4, 12)


def test_the_gradient_is_that_of_the_whole_batch(tmp_path):
    """Without a norm over the batch and without dropout the parts add up to the same steps."""

    def run(folder, room):
        settings = replace(SETTINGS, num_steps=4, max_grad_norm=None)
        original, Residual.forward = Residual.forward, lambda self, hidden: hidden + self.narrow(self.wide(hidden))
        try:
            return bits(train(folder, {"keep": room}, settings, dropout=0.0)[0])
        finally:
            Residual.forward = original

    whole, parts = run(tmp_path / "whole", 8), run(tmp_path / "parts", 2)
    assert all(torch.allclose(parts[name], value, atol=1e-6) for name, value in whole.items())


@pytest.mark.parametrize("stop_after", [2, 7])
def test_what_was_decided_is_resumed(tmp_path, stop_after):
    straight, _, _ = train(tmp_path / "straight", {"recompute": 4}, has_keeper=True)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", {"recompute": 4}, has_keeper=True, watcher=Watcher(stop_after))
    points = tmp_path / "resumed/resume"
    state = read_json(points / f"step-{list_steps(points)[-1]:08d}/state.json")["progress"]
    assert (state["activation_plan"], state["num_parts"]) == ("recompute", 2)
    model, _, watcher = train(tmp_path / "resumed", {"recompute": 4}, has_keeper=True)
    assert (model.num_refused, watcher.notes) == (0, [])
    assert all(torch.equal(a, b) for a, b in zip(bits(model).values(), bits(straight).values(), strict=True))


def test_one_row_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(torch.OutOfMemoryError, match="step 1: memory does not suffice for one row; use shorter rows"):
        train(tmp_path, {})


def test_batches_are_divided_by_rows():
    batch = {"inputs": torch.arange(10).view(5, 2), "labels": torch.arange(5)}
    assert [part["labels"].tolist() for part in divide_batch(batch, 2)] == [[0, 1, 2], [3, 4]]
    assert [len(part["inputs"]) for part in divide_batch(batch, 8)] == [1] * 5
    assert [is_empty for _, is_empty in divide_window([(batch, False), (batch, True)], 2)] == [False, False, True, True]
    with pytest.raises(ValueError, match="cannot be divided: rows must stand first in every tensor"):
        divide_batch(batch | {"offsets": torch.arange(6)}, 2)
