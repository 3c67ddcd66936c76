"""Class attention's view of the image tokens as steps of autograd that keep the tokens alone.

The norm of the tokens is repeated wherever it is read: three such steps share one kept map.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from components.models.xcit.fast.common import (
    Gradient,
    Normed,
    compute_dtype,
    first_derivative,
    residual,
    sum_rows,
    without_autocast,
)


class _ScoreTokens(Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        tokens: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        probe: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(tokens, norm_weight, norm_bias, probe)
        ctx.eps, ctx.dtype = eps, dtype
        normed = Normed(tokens, norm_weight, norm_bias, eps, dtype).out
        return torch.bmm(probe.to(dtype), normed.transpose(1, 2))

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        tokens, norm_weight, norm_bias, probe = ctx.saved_tensors
        grad = grad.to(ctx.dtype)
        normed = Normed(tokens, norm_weight, norm_bias, ctx.eps, ctx.dtype)
        grad_probe = torch.bmm(grad, normed.out).to(probe.dtype)
        grads = normed.backward(torch.bmm(grad.transpose(1, 2), probe.to(ctx.dtype)))
        return *grads, grad_probe, None, None


class _PoolTokens(Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        tokens: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weights: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(tokens, norm_weight, norm_bias, weights)
        ctx.eps, ctx.dtype = eps, dtype
        return torch.bmm(weights.to(dtype), Normed(tokens, norm_weight, norm_bias, eps, dtype).out)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        tokens, norm_weight, norm_bias, weights = ctx.saved_tensors
        grad = grad.to(ctx.dtype)
        normed = Normed(tokens, norm_weight, norm_bias, ctx.eps, ctx.dtype)
        grad_weights = torch.bmm(grad, normed.out.transpose(1, 2)).to(weights.dtype)
        grads = normed.backward(torch.bmm(weights.to(ctx.dtype).transpose(1, 2), grad))
        return *grads, grad_weights, None, None


class _AdvanceTokens(Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        tokens: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        gamma: Tensor,
        weight2: Tensor | None,
        bias2: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(tokens, weight1, bias1, gamma, weight2, bias2)
        ctx.eps = eps
        moved = torch.addcmul(tokens, Normed(tokens, weight1, bias1, eps, tokens.dtype).out, gamma)
        if weight2 is not None and bias2 is not None:
            moved = Normed(moved, weight2, bias2, eps, tokens.dtype).out
        return moved.mul_(2.0)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        tokens, weight1, bias1, gamma, weight2, bias2 = ctx.saved_tensors
        normed = Normed(tokens, weight1, bias1, ctx.eps, tokens.dtype)
        grad = grad * 2.0
        grads2: tuple[Gradient, Gradient] = (None, None)
        if weight2 is not None:
            moved = torch.addcmul(tokens, normed.out, gamma)
            grad, *rest = Normed(moved, weight2, bias2, ctx.eps, tokens.dtype).backward(grad)
            grads2 = (rest[0], rest[1])
        grad_gamma = sum_rows(grad * normed.out).to(gamma.dtype)
        grad_tokens, *grads1 = normed.backward(grad * gamma)
        return grad_tokens.add_(grad), *grads1, grad_gamma, *grads2, None


def score_tokens(tokens: Tensor, norm: nn.LayerNorm, probe: Tensor) -> Tensor:
    """Products of probes (B, h, C) with normed tokens (B, N, C): (B, h, N)."""
    tokens = residual(tokens, norm)
    scores: Tensor = _ScoreTokens.apply(tokens, norm.weight, norm.bias, probe, norm.eps, compute_dtype(tokens))
    return scores


def pool_tokens(tokens: Tensor, norm: nn.LayerNorm, weights: Tensor) -> Tensor:
    """Sums of normed tokens (B, N, C) by weights (B, h, N): (B, h, C)."""
    tokens = residual(tokens, norm)
    pooled: Tensor = _PoolTokens.apply(tokens, norm.weight, norm.bias, weights, norm.eps, compute_dtype(tokens))
    return pooled


def advance_tokens(tokens: Tensor, norm1: nn.LayerNorm, gamma: Tensor, norm2: nn.LayerNorm | None) -> Tensor:
    """Image tokens behind a class-attention block: 2 norm2(tokens + gamma norm1(tokens)), norm2 if there is one."""
    tokens = residual(tokens, norm1)
    weight2, bias2 = (None, None) if norm2 is None else (norm2.weight, norm2.bias)
    advanced: Tensor = _AdvanceTokens.apply(tokens, norm1.weight, norm1.bias, gamma, weight2, bias2, norm1.eps)
    return advanced
