"""The training loop: exact resume from any point, exact means over micro-batches, what is kept and what is pruned."""

import gc
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from loop_parts import Rows, Watcher, bits, collate, save
from torch import nn

from components.files.digests import write_digests
from components.memory.host_memory import FreedMemory
from components.models.shared.output import ModelOutput
from components.optim.schedules import build_cosine
from components.training.checkpoint import list_steps
from components.training.history import read_history
from components.training.loop import Interrupted, LoopSettings, TrainingLoop


class Regression(nn.Module):
    """A model small enough to train in milliseconds, with dropout so that random states matter."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 3))

    def forward(self, inputs, labels):
        logits = self.layers(inputs)
        return ModelOutput(logits, nn.functional.cross_entropy(logits, labels))


SETTINGS = LoopSettings(
    num_steps=23, batch_size=8, gradient_accumulation_steps=2, eval_every_steps=5, log_every_steps=1, seed=3
)


def weight_score(model):
    return {"valid/score": float(model.layers[0].weight.detach().norm())}


def train(folder, settings=SETTINGS, *, watcher=None, evaluate=weight_score, dropout=0.5, data=None, is_done=True):
    torch.manual_seed(7)
    model = Regression(dropout)
    loop = TrainingLoop(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.05),
        schedule=build_cosine(num_steps=settings.num_steps, num_warmup_steps=3, final_factor=0.0),
        data=Rows() if data is None else data,
        collate=collate,
        evaluate=evaluate,
        save_model=save,
        settings=settings,
        folder=folder,
        observer=watcher or Watcher(),
    )
    progress = loop.run()
    if is_done:  # as a learner does once the fold's predictions are there
        loop.drop_former_point()
    return model, progress


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7, 11, 22])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_an_interrupted_training_ends_in_the_same_bits(tmp_path, stop_after, ema_decay):
    settings = replace(SETTINGS, ema_decay=ema_decay, num_best_checkpoints=2, log_every_steps=3)
    straight, progress = train(tmp_path / "straight", settings)
    watcher = Watcher(stop_after)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", settings, watcher=watcher)
    resumed, again = train(tmp_path / "resumed", settings)
    assert all(torch.equal(a, b) for a, b in zip(bits(straight).values(), bits(resumed).values(), strict=True))
    assert again.best == progress.best
    assert read_history(tmp_path / "resumed/history.jsonl") == read_history(tmp_path / "straight/history.jsonl")


def test_accumulated_micro_batches_give_the_gradient_of_the_whole(tmp_path):
    """50 rows in micro-batches of 8: a plain mean of means would weigh the last, smaller one too much."""
    whole = replace(SETTINGS, num_steps=6, batch_size=50, gradient_accumulation_steps=1, bucket_batches=0)
    parts = replace(whole, batch_size=8, gradient_accumulation_steps=7)
    one, _ = train(tmp_path / "whole", whole, dropout=0.0)
    many, _ = train(tmp_path / "parts", parts, dropout=0.0)
    for a, b in zip(bits(one).values(), bits(many).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_leftover_gradients_are_used(tmp_path):
    """50 rows are 7 micro-batches of 8; in pairs they make four steps, the last of one micro-batch."""
    watcher = Watcher()
    settings = replace(SETTINGS, num_steps=4, eval_every_steps=None)
    _, progress = train(tmp_path, settings, watcher=watcher)
    assert (progress.epoch, progress.position) == (0, 7)


def test_the_logged_rate_is_the_one_that_was_used(tmp_path):
    watcher = Watcher()
    train(tmp_path, watcher=watcher)
    factor = build_cosine(num_steps=23, num_warmup_steps=3, final_factor=0.0)
    assert [(step, lr) for step, _, lr in watcher.logs] == [(s + 1, 0.05 * factor(s)) for s in range(23)]


def test_the_best_checkpoints_and_one_resume_point_remain(tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.7, 0.3])
    settings = replace(SETTINGS, num_best_checkpoints=2)
    _, progress = train(tmp_path, settings, evaluate=lambda model: {"valid/score": next(scores)})
    assert progress.best == [(0.9, 10), (0.7, 20)]
    assert list_steps(tmp_path / "checkpoints") == [10, 20]
    assert list_steps(tmp_path / "resume") == [23]


def test_a_lower_score_can_be_the_better_one(tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.1, 0.3])
    settings = replace(SETTINGS, greater_is_better=False)
    _, progress = train(tmp_path, settings, evaluate=lambda model: {"valid/score": next(scores)})
    assert progress.best == [(0.1, 5)]


def test_training_stops_when_patience_is_over(tmp_path):
    scores = iter([0.5, 0.4, 0.3, 0.9])
    settings = replace(SETTINGS, early_stopping_patience=2)
    watcher = Watcher()
    _, progress = train(tmp_path, settings, watcher=watcher, evaluate=lambda model: {"valid/score": next(scores)})
    assert progress.step == 15
    assert progress.is_stopped_early
    assert [step for step, _ in watcher.evaluations] == [5, 10, 15]


def test_without_validation_the_last_weights_are_kept(tmp_path):
    _, progress = train(tmp_path, evaluate=None)
    assert list_steps(tmp_path / "checkpoints") == [23]
    assert [step for _, step in progress.best] == [23]


def test_the_average_is_what_is_scored_and_kept(tmp_path):
    settings = replace(SETTINGS, ema_decay=0.9, eval_every_steps=None)
    seen = []
    model, _ = train(tmp_path, settings, evaluate=lambda m: (seen.append(bits(m)), {"valid/score": 1.0})[1])
    saved = torch.load(tmp_path / "checkpoints/step-00000023/weights.pt", weights_only=True)
    assert all(torch.equal(saved[name], seen[0][name]) for name in saved)
    assert not torch.equal(saved["layers.0.weight"], model.layers[0].weight)


class Census(Watcher):
    """Counts the tensors that are alive whenever the loop logs."""

    def __init__(self):
        super().__init__()
        self.counts, self.graphs = [], []

    def on_log(self, step, metrics):
        gc.collect()
        tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, nn.Parameter)]
        self.counts.append(len(tensors))
        self.graphs.append(sum(tensor.grad_fn is not None for tensor in tensors))


def test_nothing_of_a_step_is_alive_after_it(tmp_path):
    census = Census()
    gc.freeze()  # what was there before is no work for the census, which otherwise takes a second a step
    try:
        train(tmp_path, replace(SETTINGS, eval_every_steps=None, gradient_accumulation_steps=1), watcher=census)
    finally:
        gc.unfreeze()
    assert census.counts == [census.counts[0]] * 23
    assert census.graphs == [census.graphs[0]] * 23


@pytest.mark.parametrize(("growth", "expected"), [(0, [15, 23]), (30 << 20, [15, 20, 23])])
def test_free_memory_goes_back_after_evaluations_and_when_the_process_has_grown(
    growth, expected, tmp_path, monkeypatch
):
    """Looked at after steps 16 and 20: four steps of 30 MB are more than is let pass, 64 MB."""
    calls = []
    watcher = Watcher()
    monkeypatch.setattr("components.memory.host_memory.give_back_memory", lambda: calls.append(watcher.num_steps + 1))
    monkeypatch.setattr(
        "psutil.Process.memory_info", lambda self: SimpleNamespace(rss=(100 << 20) + growth * watcher.num_steps)
    )
    watcher.on_step = FreedMemory().after_step
    train(tmp_path, replace(SETTINGS, eval_every_steps=15), watcher=watcher)
    assert calls == expected


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    rows = Rows()
    rows.inputs[0] = math.nan
    with pytest.raises(FloatingPointError, match="the loss is nan at step"):
        train(tmp_path, data=rows)


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no row to train on"):
        train(tmp_path, data=Rows(0))


def test_another_number_of_processes_is_refused_by_name(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, watcher=Watcher(3))
    state = next(tmp_path.glob("resume/step-*/state.json"))
    state.write_text(state.read_text().replace('"num_processes": 1', '"num_processes": 2'))
    write_digests(state.parent)
    with pytest.raises(ValueError, match="written by 2 process"):
        train(tmp_path)
