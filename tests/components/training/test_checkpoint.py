"""Checkpoints are whole or absent, and give back every bit."""

import errno
import random

import numpy as np
import pytest
import torch
from torch import nn

from components.seeding import collect_random_states, restore_random_states, seed_everything
from components.training.checkpoint import (
    atomic_file,
    atomic_folder,
    list_steps,
    load_optimizer,
    load_weights,
    prune_steps,
    read_json,
    save_optimizer,
    save_weights,
    step_folder,
    write_json,
)
from components.training.history import History, read_history


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "whole").write_text("x")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["whole"]


def test_a_file_keeps_its_former_content_when_writing_fails(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError), atomic_file(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_floats_survive_json_to_the_last_bit(tmp_path):
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values


def test_a_damaged_json_names_itself(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x\.json: unreadable"):
        read_json(tmp_path / "x.json")


def test_steps_half_written_do_not_count(tmp_path):
    for name in ("step-00000002", "step-00000010", "step-00000011.partial"):
        (tmp_path / name).mkdir()
    assert list_steps(tmp_path) == [2, 10]
    prune_steps(tmp_path, keep={10})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert step_folder(tmp_path, 10).is_dir()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    saved, loaded = Tied(), Tied()
    save_weights(saved, tmp_path / "model.safetensors")
    load_weights(loaded, tmp_path / "model.safetensors")
    assert torch.equal(loaded.first.weight, saved.first.weight)
    assert loaded.second.weight is loaded.first.weight


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_unreadable_weights_name_their_file(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"model\.safetensors: unreadable as weights"):
        load_weights(Tied(), path)


def test_weights_of_another_model_are_refused(tmp_path):
    save_weights(nn.Linear(2, 2), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="unreadable as weights of this model"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.safetensors")


def test_an_optimizer_goes_on_bit_for_bit(tmp_path):
    def train(steps, model, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    straight, resumed = nn.Linear(3, 2), nn.Linear(3, 2)
    resumed.load_state_dict(straight.state_dict())
    train(6, straight, torch.optim.AdamW(straight.parameters(), lr=0.1))
    first = torch.optim.AdamW(resumed.parameters(), lr=0.1)
    train(3, resumed, first)
    rest = save_optimizer(first, tmp_path / "optimizer.safetensors")
    write_json(tmp_path / "rest.json", rest)
    second = torch.optim.AdamW(resumed.parameters(), lr=9.0)
    load_optimizer(second, tmp_path / "optimizer.safetensors", read_json(tmp_path / "rest.json"))
    train(3, resumed, second)
    assert torch.equal(resumed.weight, straight.weight)
    assert torch.equal(resumed.bias, straight.bias)


def test_random_states_go_on_exactly(tmp_path):
    seed_everything(3)
    random.gauss(0, 1), np.random.standard_normal(), torch.randn(3)
    states = collect_random_states()
    expected = (random.gauss(0, 1), random.random(), np.random.standard_normal(), torch.randn(3).tolist())
    seed_everything(99)
    restore_random_states(states)
    assert (random.gauss(0, 1), random.random(), np.random.standard_normal(), torch.randn(3).tolist()) == expected


def test_a_training_on_the_cpu_leaves_the_gpu_of_its_machine_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: asked.append(index) or torch.zeros(16))
    assert not torch.cuda.is_initialized()
    states = collect_random_states()
    assert (asked, [name for name in states if "cuda" in name]) == ([], [])
    restore_random_states(states)
    assert not torch.cuda.is_initialized()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert "torch_cuda_0" in collect_random_states()


def test_a_history_rewinds_to_its_resume_point(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, is_writer=True)
    history.append(1, {"train/loss": 0.5})
    kept = history.flush()
    history.append(2, {"train/loss": 0.4})
    history.close()
    again = History(path, is_writer=True)
    again.rewind(kept)
    again.append(2, {"train/loss": 0.3})
    again.close()
    with path.open("a") as file:
        file.write('{"step": 3, "tra')
    assert read_history(path) == [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 0.3}]
