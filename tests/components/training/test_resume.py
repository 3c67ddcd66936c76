"""A damaged resume point is named and the one before it taken; the training ends in the bits of an undamaged one."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from loop_parts import Rows, Watcher, bits, collate
from safetensors.torch import save_file
from small_runs import flip, random_damage, tear
from torch import nn

from components.files.digests import DIGESTS, file_digest
from components.models.shared.output import ModelOutput
from components.optim.schedules import build_cosine
from components.training.checkpoint import list_steps, step_folder
from components.training.loop import Interrupted, LoopSettings, TrainingLoop
from components.training.resume import TrainingState

SETTINGS = LoopSettings(
    num_steps=12, batch_size=8, eval_every_steps=4, checkpoint_every_steps=2, log_every_steps=3, ema_decay=0.9, seed=3
)


class Classifier(nn.Module):
    """A model small enough to train in milliseconds, with dropout so that random states matter."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, inputs, labels):
        logits = self.layers(inputs)
        return ModelOutput(logits, nn.functional.cross_entropy(logits, labels))


def run(folder, *, stop_after=None, settings=SETTINGS):
    torch.manual_seed(7)
    model, watcher = Classifier(), Watcher(stop_after)
    loop = TrainingLoop(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.05),
        schedule=build_cosine(num_steps=12, num_warmup_steps=3, final_factor=0.0),
        data=Rows(),
        collate=collate,
        evaluate=lambda model: {"valid/score": float(model.layers[0].weight.detach().norm())},
        save_model=lambda model, folder: save_file(model.state_dict(), str(folder / "model.safetensors")),
        settings=settings,
        folder=folder,
        observer=watcher,
    )
    if stop_after is None:
        loop.run()
    else:
        with pytest.raises(Interrupted):
            loop.run()
    return loop, watcher


def train(folder, **changes):
    loop, watcher = run(folder, **changes)
    return loop.plain_model, watcher


def contents(folder):
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a training that nobody touched leaves behind."""
    folder = tmp_path_factory.mktemp("straight")
    train(folder)
    return contents(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A training that was interrupted after step 9: its resume points are of steps 8 and 9."""
    folder = tmp_path_factory.mktemp("stopped")
    train(folder, stop_after=9)
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "fold0")


def test_two_points_and_the_checkpoints_that_they_name_are_kept(folder):
    assert list_steps(folder / "resume") == [8, 9]
    assert list_steps(folder / "checkpoints") == [8]
    loop, _ = run(folder)
    assert list_steps(folder / "resume") == [10, 12]
    assert list_steps(folder / "checkpoints") == [8, 12]
    loop.drop_former_point()
    assert list_steps(folder / "resume") == [12]
    assert list_steps(folder / "checkpoints") == [12]


def test_there_are_never_more_than_two_points_on_the_disk(tmp_path, monkeypatch):
    seen, write = [], TrainingState._write

    def counting(self, folder, *rest):
        write(self, folder, *rest)
        # A partial folder has a token of its own in its name.
        names = (re.sub(r"\.[0-9a-f]{16}(?=\.partial$)", "", path.name) for path in folder.parent.iterdir())
        seen.append(sorted(names))

    monkeypatch.setattr(TrainingState, "_write", counting)
    train(tmp_path)
    assert seen[0] == ["step-00000002.partial"]
    assert seen[-1] == ["step-00000010", "step-00000012.partial"]
    assert [len(names) for names in seen] == [1, 2, 2, 2, 2, 2]


FILES = (
    "model.safetensors", "optimizer.safetensors", "ema.safetensors", "random.safetensors", "state.json",
    "history.jsonl", DIGESTS,
)  # fmt: skip


@pytest.mark.parametrize("damage", [flip, tear, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_the_point_before_a_damaged_one_is_taken(folder, straight, name, damage):
    damage(folder / "resume/step-00000009" / name)
    _, watcher = train(folder)
    ((step, note),) = watcher.notes
    assert step == 8
    assert f"resume/step-00000009/{name if damage is not flip or name != DIGESTS else ''}" in note
    assert note.endswith("; the resume point of step 9 is not used, training goes on from step 8")
    assert watcher.num_steps == 4
    assert contents(folder) == straight


@pytest.mark.parametrize("bit", [5, 6])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_no_high_bit_of_an_exponent_is_taken(folder, straight, name, bit):
    path = folder / "resume/step-00000009" / name
    flip(path, byte=path.stat().st_size - 1, bit=bit)
    train(folder)
    assert contents(folder) == straight


def test_without_a_whole_point_the_training_begins_anew_and_says_so(folder, straight):
    for step in (8, 9):
        tear(step_folder(folder / "resume", step) / "ema.safetensors")
    _, watcher = train(folder)
    assert [note.partition("; ")[2] for _, note in watcher.notes] == [
        f"the resume point of step {step} is not used, this fold is trained from its start" for step in (9, 8)
    ]
    assert watcher.num_steps == 12
    assert contents(folder) == straight


def test_a_checkpoint_that_a_point_names_is_looked_at_too(tmp_path):
    settings = replace(SETTINGS, num_steps=13, eval_every_steps=3, checkpoint_every_steps=None)
    train(tmp_path / "straight", settings=settings)
    train(tmp_path / "a", settings=settings, stop_after=7)
    assert list_steps(tmp_path / "a/resume") == [6, 7]
    (weights,) = (tmp_path / "a/checkpoints").glob("*/model.safetensors")
    flip(weights)
    _, watcher = train(tmp_path / "a", settings=settings)
    assert len(watcher.notes) == 2  # both points name it
    assert f"{weights}: damaged or changed" in watcher.notes[0][1]
    assert contents(tmp_path / "a") == contents(tmp_path / "straight")


@pytest.mark.parametrize("damage", [flip, tear, Path.unlink])
def test_curves_are_put_back_from_the_resume_point(folder, straight, damage):
    damage(folder / "history.jsonl")
    _, watcher = train(folder)
    ((step, note),) = watcher.notes
    assert (step, watcher.num_steps) == (9, 3)
    assert f"{folder / 'history.jsonl'}: damaged or missing; put back from " in note
    assert contents(folder) == straight


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_damage_the_end_is_the_same(folder, straight, seed):
    source = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = source.choice(files)
    random_damage(path, source)
    _, watcher = train(folder)
    assert contents(folder) == straight
    # What is not used is not looked at, and of text some bits change no value.
    assert watcher.notes or "step-00000008" in path.parts or path.suffix in (".json", ".jsonl")


def make_old(folder):
    """As a version without digests left it."""
    for path in folder.rglob(DIGESTS):
        path.unlink()
    for path in folder.glob("resume/*/history.jsonl"):
        path.unlink()
    shutil.rmtree(folder / "resume/step-00000008")
    (state,) = folder.glob("resume/*/state.json")
    content = json.loads(state.read_text())
    del content["checkpoints"]
    state.write_text(json.dumps(content))


def test_a_point_of_an_older_version_is_gone_on_from(folder, tmp_path):
    train(tmp_path / "straight")
    make_old(folder)
    model, watcher = train(folder)
    assert watcher.notes == []
    again, _ = train(tmp_path / "straight")
    assert all(torch.equal(a, b) for a, b in zip(bits(model).values(), bits(again).values(), strict=True))
    assert (folder / "history.jsonl").read_bytes() == (tmp_path / "straight/history.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["model", "optimizer", "ema", "random"])
def test_a_torn_point_of_an_older_version_names_its_file(folder, name):
    make_old(folder)
    tear(folder / f"resume/step-00000009/{name}.safetensors")
    with pytest.raises(ValueError, match=rf"step-00000009/{name}\.safetensors: unreadable as ") as error:
        train(folder)
    assert "\n" not in str(error.value)


def test_cut_curves_of_an_older_version_are_named(folder):
    make_old(folder)
    tear(folder / "history.jsonl")
    with pytest.raises(ValueError, match=r"history\.jsonl: cut to \d+ bytes; its resume point was made at \d+"):
        train(folder)
