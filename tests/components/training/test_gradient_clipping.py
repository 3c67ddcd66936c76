"""Clipping here against torch's own: the same bits, and nothing done for what it does not know."""

import math

import pytest
import torch
from torch import nn

from components.training.gradient_clipping import clip_plain_gradients


def build_params(scale: float, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in ((3, 4), (5,), (), (2, 2))]
    for param in params[:3]:  # one has no gradient
        param.grad = (torch.randn(param.shape, generator=generator) * scale).to(dtype)
    return params


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 1e4, math.nan, math.inf])
def test_gradients_have_the_bits_of_torchs_clipping(scale):
    ours, theirs = build_params(scale), build_params(scale)
    assert clip_plain_gradients(ours, 1.0)
    nn.utils.clip_grad_norm_(theirs, 1.0)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        assert torch.equal(one.grad.view(torch.int32), other.grad.view(torch.int32))


def test_other_types_are_left_to_others():
    params = build_params(10.0, torch.float64)
    before = [param.grad.clone() for param in params[:3]]
    assert not clip_plain_gradients(params, 1.0)
    assert all(torch.equal(param.grad, value) for param, value in zip(params, before, strict=False))


def test_without_a_gradient_there_is_nothing_to_do():
    assert not clip_plain_gradients([nn.Parameter(torch.zeros(2))], 1.0)
