"""Cross-covariance attention as a single step of autograd, in two forms chosen by shape.

Both fold what follows the weights A (d x d per head) into one matrix per image, so that the mixed values are not kept.
The standard form, here, keeps q, k and v; the Gram form is in `xcit_fast_gram`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from components.models.xcit.fast.common import (
    NORM_FLOOR,
    ChannelWeights,
    Gradient,
    Normed,
    accumulate,
    add_branch,
    branch_gradient,
    compute_dtype,
    first_derivative,
    fold_scale,
    residual,
    sum_rows,
    unfold_scale,
    without_autocast,
)
from components.models.xcit.fast.gram import AddGram

# Tokens per channel from which the Gram form is the cheaper, as measured on a CPU core. Its moments stay in float32,
# whose products are many times dearer than those of half precision.
GRAM_FROM = 1.5
GRAM_FROM_HALF = 8.0
# Numbers of one image's head up to which a CPU writes a product and then copies it: straight into a strided place
# torch multiplies image by image.
SMALL = 1024


def is_gram(num_tokens: int, dim: int, dtype: torch.dtype) -> bool:
    """Whether XCA takes the Gram form for inputs (B, num_tokens, dim) multiplied in `dtype`."""
    return num_tokens >= dim * (GRAM_FROM_HALF if dtype.itemsize == 2 else GRAM_FROM)


def fold_weights(out_weight: Tensor, weights: Tensor) -> Tensor:
    """M = Wo blockdiag(A): (C, C) and (B, h, d, d) -> (B, C, C)."""
    batch, heads, width, _ = weights.shape
    by_head = torch.unflatten(out_weight, 1, (heads, width)).transpose(0, 1)  # (h, C, d)
    beside = weights.to(out_weight.dtype).permute(1, 2, 0, 3).reshape(heads, width, -1)  # (h, d, B d)
    folded = torch.unflatten(torch.bmm(by_head, beside), 2, (batch, width))  # (h, C, B, d)
    return folded.permute(2, 1, 0, 3).reshape(batch, -1, heads * width)


class _AddStandard(Function):
    """Keeps x, q, k and v (four token maps) and the scores."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        qkv_weight: Tensor,
        qkv_bias: Tensor,
        temperature: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        gamma: Tensor | None,
        path_kept: Tensor | None,
        weights_kept: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        dim, num_heads = x.shape[2], len(temperature)
        normed = Normed(x, norm_weight, norm_bias, eps, dtype).out
        qkv = functional.linear(normed, qkv_weight.to(dtype), qkv_bias.to(dtype))  # (B, N, 3 C)
        squares = torch.unflatten(_square_sums(qkv[..., : 2 * dim]), 1, (2, num_heads, -1))  # (B, 2, h, d)
        scores = _correlate(qkv[..., :dim], qkv[..., dim : 2 * dim], squares, num_heads)  # (B, h, d, d)
        weights = ChannelWeights(scores, squares, temperature, weights_kept).out
        folded_weight, folded_bias = fold_scale(gamma, out_weight, out_bias, dtype)
        folded = fold_weights(folded_weight, weights).transpose(1, 2)  # (B, C, C), M^T
        ctx.save_for_backward(
            *(x, qkv, scores, squares, norm_weight, norm_bias, qkv_weight, temperature, out_weight, out_bias, gamma),
            *(path_kept, weights_kept),
        )
        ctx.eps = eps
        value = qkv[..., 2 * dim :]
        if path_kept is None and dtype == x.dtype:
            return accumulate(x + folded_bias, value, folded)
        return add_branch(x, torch.baddbmm(folded_bias, value, folded), path_kept)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        x, qkv, scores, squares, *parameters, path_kept, weights_kept = ctx.saved_tensors
        norm_weight, norm_bias, qkv_weight, temperature, out_weight, out_bias, gamma = parameters
        dtype, dim = qkv.dtype, x.shape[2]
        query, key, value = qkv.split(dim, dim=2)
        weights = ChannelWeights(scores, squares, temperature, weights_kept)
        folded_weight = fold_scale(gamma, out_weight, out_bias, dtype)[0]
        grad_branch = branch_gradient(grad, path_kept, dtype)
        grad_mixed = grad_branch @ folded_weight  # (B, N, C), of the mixed values V A^T
        grad_weights = _head_products(grad_mixed, value, len(temperature))
        soft = weights.out.to(dtype)
        mixed = torch.empty_like(grad_mixed)
        _mix_heads(value, soft.transpose(2, 3), out=mixed)
        grad_out = grad_branch.flatten(0, 1).t() @ mixed.flatten(0, 1)
        grad_qkv = torch.empty_like(qkv)
        _mix_heads(grad_mixed, soft, out=grad_qkv[..., 2 * dim :])
        grad_scores, own, grad_temperature = weights.backward(grad_weights.to(scores.dtype))
        _spread(query, key, grad_scores.to(dtype), own.to(dtype), out=grad_qkv)
        normed = Normed(x, norm_weight, norm_bias, ctx.eps, dtype)
        flat = grad_qkv.flatten(0, 1)  # (B N, 3 C)
        grad_qkv_weight = (flat.t() @ normed.out.flatten(0, 1)).to(qkv_weight.dtype)
        grad_x, grad_norm_weight, grad_norm_bias = normed.backward((flat @ qkv_weight.to(dtype)).view_as(x))
        grad_gamma, grad_out_weight, grad_out_bias = unfold_scale(
            gamma, out_weight, out_bias, grad_out, sum_rows(grad_branch)
        )
        return (
            *(grad_x.add_(grad), grad_norm_weight, grad_norm_bias),
            *(grad_qkv_weight, sum_rows(flat).to(qkv_weight.dtype), grad_temperature.to(temperature.dtype)),
            *(grad_out_weight, grad_out_bias, grad_gamma),
            *(None, None, None, None),
        )


def _square_sums(x: Tensor) -> Tensor:
    """(B, N, K) -> (B, K), in float32 at least."""
    wide = x if x.dtype == torch.float64 else x.float()
    return wide.square().sum(1)


def _correlate(query: Tensor, key: Tensor, squares: Tensor, num_heads: int) -> Tensor:
    """q^T k per head, (B, h, d, d), in the type of `squares`."""
    if query.dtype.itemsize == 2:
        # Unnormed sums over all tokens overflow float16
        scale = squares.sqrt().clamp_min(NORM_FLOOR)  # (B, 2, h, d)
        query, key = ((z / scale[:, i].flatten(1)[:, None]).to(z.dtype) for i, z in enumerate((query, key)))
        cosines = _head_products(query, key, num_heads).to(squares.dtype)
        return cosines * scale[:, 0, :, :, None] * scale[:, 1, :, None, :]
    return _head_products(query, key, num_heads)


def _head_products(query: Tensor, key: Tensor, num_heads: int) -> Tensor:
    if query.device.type == "cpu":
        # Products of strided views: copying heads apart costs more than it saves
        pairs = zip(query.chunk(num_heads, dim=2), key.chunk(num_heads, dim=2), strict=True)
        return torch.stack([torch.bmm(q.transpose(1, 2), k) for q, k in pairs], dim=1)
    by_head = (torch.unflatten(z, 2, (num_heads, -1)).transpose(1, 2) for z in (query, key))  # (B, h, N, d)
    q, k = by_head
    return q.transpose(2, 3) @ k


def _mix_heads(x: Tensor, matrices: Tensor, *, out: Tensor) -> None:
    """Write x M of each head, for x (B, N, C) and matrices (B, h, d, d), into out (B, N, C)."""
    num_heads = matrices.shape[1]
    if x.device.type == "cpu":
        is_small = x.shape[1] * matrices.shape[2] <= SMALL
        for head, (part, target) in enumerate(zip(x.chunk(num_heads, 2), out.chunk(num_heads, 2), strict=True)):
            if is_small:
                target.copy_(torch.bmm(part, matrices[:, head]))
            else:
                torch.bmm(part, matrices[:, head], out=target)
    else:
        product = torch.unflatten(x, 2, (num_heads, -1)).transpose(1, 2) @ matrices  # (B, h, N, d)
        torch.unflatten(out, 2, (num_heads, -1)).copy_(product.transpose(1, 2))


def _spread(query: Tensor, key: Tensor, grad_scores: Tensor, own: Tensor, *, out: Tensor) -> None:
    """Write dq = k dS^T + own_q q and dk = q dS + own_k k into the first two thirds of out (B, N, 3 C)."""
    sides = ((key, query, grad_scores.transpose(2, 3)), (query, key, grad_scores))
    for (other, this, matrices), factor, target in zip(sides, own.unbind(1), out.chunk(3, 2), strict=False):
        _mix_heads(other, matrices, out=target)
        target.addcmul_(this, factor.flatten(1)[:, None])


def add_cross_covariance(
    x: Tensor,
    norm: nn.LayerNorm,
    qkv: nn.Linear,
    temperature: Tensor,
    proj: nn.Linear,
    gamma: Tensor | None,
    path_kept: Tensor | None,
    weights_kept: Tensor | None,
) -> Tensor:
    """x + path_kept * gamma * XCA(norm(x)) for x (B, N, C).

    path_kept (B, 1, 1) holds drop path's factors, weights_kept (B, h, d, d) dropout's on the weights; None is none.
    """
    x = residual(x, norm)
    dtype = compute_dtype(x)
    step = AddGram if is_gram(x.shape[1], x.shape[2], dtype) else _AddStandard
    added: Tensor = step.apply(
        *(x, norm.weight, norm.bias, qkv.weight, qkv.bias, temperature, proj.weight, proj.bias, gamma),
        *(path_kept, weights_kept, norm.eps, dtype),
    )
    return added
