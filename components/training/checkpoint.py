"""Checkpoints: folders of safetensors and JSON that are either whole or absent, never pickle.

A folder is written under a temporary name, flushed to the disk and renamed, so that a process killed at any moment
leaves the previous state readable. Names carry the step, hence nothing that exists is ever overwritten.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from components.files.atomic import PARTIAL
from components.files.atomic import atomic_file as atomic_file
from components.files.atomic import atomic_folder as atomic_folder
from components.files.atomic import read_json as read_json
from components.files.atomic import write_json as write_json


def save_weights(model: nn.Module, path: Path) -> None:
    """All parameters and buffers; tied tensors are stored once."""
    save_model(model, str(path))


def load_weights(model: nn.Module, path: Path) -> None:
    """The inverse of `save_weights`; a missing, torn or foreign file is a ValueError that names it."""
    try:
        load_model(model, str(path), strict=True)
    except Exception as error:
        raise ValueError(f"{path}: unreadable as weights of this model ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> dict[str, Any]:
    """Write the optimizer's tensors to `path`; return the rest, which is plain JSON."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    content = optimizer.state_dict()
    for index, state in content["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value.contiguous()
            else:
                scalars.setdefault(str(index), {})[key] = value
    save_file(tensors, str(path))
    return {"scalars": scalars, "param_groups": content["param_groups"]}


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path, rest: Mapping[str, Any]) -> None:
    """The inverse of `save_optimizer`, to the last bit and to the type of every option.

    JSON has lists alone, so that an option becomes a tuple again where `optimizer` was built with one.
    """
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in rest["scalars"].items()}
    for name, tensor in load_file(str(path)).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = [_typed_like(optimizer.defaults, saved) for saved in rest["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _typed_like(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(own.get(name), tuple) else value for name, value in saved.items()}


def step_folder(parent: Path, step: int) -> Path:
    """Where the state after `step` steps lies."""
    return parent / f"step-{step:08d}"


def list_steps(parent: Path) -> list[int]:
    """The steps that are wholly written below `parent`, ascending; what a kill left half-written does not count."""
    if not parent.is_dir():
        return []
    numbers = (path.name.removeprefix("step-") for path in parent.iterdir() if path.name.startswith("step-"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def prune_steps(parent: Path, keep: set[int]) -> None:
    """Remove every step not in `keep`, and what a kill left half-written or half-removed."""
    for step in set(list_steps(parent)) - keep:
        doomed = step_folder(parent, step)
        # Renamed first: a kill in the middle of the removal must not leave a torn folder under a whole one's name.
        shutil.rmtree(doomed.rename(doomed.with_name(doomed.name + PARTIAL)))
    for leftover in parent.glob(f"*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)


def forecast_bytes(model: nn.Module, *, num_best_checkpoints: int, has_ema: bool, states_per_parameter: float) -> int:
    """Bytes a fold holds at its fullest: two resume points, the checkpoints that they name, and one being written.

    The newer point may name another checkpoint than the older one.
    """
    weights = sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))
    resume_point = weights * (1 + has_ema + states_per_parameter)
    return int(weights * (num_best_checkpoints + 2) + 2 * resume_point) + 16 * 2**20
