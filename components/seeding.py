"""Random states: set once per fold, carried exactly through a resume."""

import random

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (CPU and every GPU) alike."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def collect_random_states() -> dict[str, Tensor]:
    """Every generator's state as tensors, so that safetensors can hold them; no pickle is needed.

    Those of GPUs are among them where this process uses CUDA.
    """
    version, words, gauss = random.getstate()
    assert version == 3
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert name == "MT19937"
    states = {
        # NaN stands for "no cached gaussian".
        "python_words": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
        "torch_cpu": torch.get_rng_state(),
    }
    # Asking would initialise CUDA for a training on the CPU
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):  # type: ignore[no-untyped-call]
        states[f"torch_cuda_{index}"] = torch.cuda.get_rng_state(index)
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """The inverse of `collect_random_states`; states of GPUs that are not here are left out."""
    gauss = float(states["python_gauss"])
    random.setstate((3, tuple(states["python_words"].tolist()), None if gauss != gauss else gauss))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    torch.set_rng_state(states["torch_cpu"])
    for index in range(torch.cuda.device_count()):
        if f"torch_cuda_{index}" in states:
            torch.cuda.set_rng_state(states[f"torch_cuda_{index}"], index)
