"""Adafactor as the paper writes it, in NumPy, and what the tests of its paths share."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

EXTERNAL = {"lr": 3e-3, "relative_step": False}
STEP_SIZES = {
    "external": EXTERNAL,
    "relative": {"relative_step": True},
    "warmup_init": {"relative_step": True, "warmup_init": True},
}
MODES = [
    pytest.param({**step_size, **rest}, id="-".join([name, *(f"{key}_{value}" for key, value in rest.items())]))
    for name, step_size in STEP_SIZES.items()
    for values in itertools.product((True, False), (None, 0.9), (0.0, 0.1))
    for rest in [dict(zip(("scale_parameter", "beta1", "weight_decay"), values, strict=True))]
]


def paper_step(x, g, state, t, options):
    """One step of Shazeer & Stern 2018 in NumPy: algorithm 4 (matrices), 5 (vectors) and section 8, line by line."""
    epsilon_1, epsilon_2 = options.get("eps", (1e-30, 1e-3))
    d = options.get("clip_threshold", 1.0)
    beta_2t = 1 - t ** options.get("decay_rate", -0.8)
    squared = g**2 + epsilon_1
    if g.ndim >= 2:
        state["R"] = beta_2t * state.get("R", 0) + (1 - beta_2t) * squared.mean(axis=-1)
        state["C"] = beta_2t * state.get("C", 0) + (1 - beta_2t) * squared.mean(axis=-2)
        mean = state["R"].mean(axis=-1)[..., None, None]
        v = state["R"][..., :, None] * state["C"][..., None, :] / mean
    else:
        v = state["V"] = beta_2t * state.get("V", 0) + (1 - beta_2t) * squared
    u = g / np.sqrt(v)
    u = u / max(1, np.sqrt(np.mean(u**2)) / d)
    rho = options.get("lr")
    if options["relative_step"]:
        rho = min(1e-6 * t if options.get("warmup_init") else 1e-2, 1 / math.sqrt(t))
    alpha = rho
    if options["scale_parameter"]:
        alpha = max(epsilon_2, np.sqrt(np.mean(x**2))) * rho
    change = alpha * u
    if options["beta1"] is not None:
        state["M"] = change = options["beta1"] * state.get("M", 0) + (1 - options["beta1"]) * change
    return x - options["weight_decay"] * alpha * x - change


@functools.cache
def random_gradients(shapes, num_steps, seed=0):
    """Gradients whose rows differ by orders of magnitude, as those of an embedding do; float32 can hold each."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        row_scales = 10 ** rng.uniform(-3, 1, (*shape[:-1], 1))
        return (rng.standard_normal(shape) * row_scales).astype(np.float32)

    return [[draw(shape) for shape in shapes] for _ in range(num_steps)]


def build_params(shapes, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter((torch.randn(shape, generator=generator) * 0.3).to(dtype)) for shape in shapes]


def set_gradients(params, gradients):
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = torch.tensor(gradient).to(param.dtype)


def run_steps(optimizer, params, gradients):
    for step_gradients in gradients:
        set_gradients(params, step_gradients)
        optimizer.step()
