"""Cross-covariance attention by the tokens' moments, as a single step of autograd.

Of all tokens X the attention needs only their second moments G = X^T X: the scores q^T k are Wq G Wk^T, the squared
norms of q's and k's channels its like, and the output is X (Wo blockdiag(A) Wv)^T, with the weights A (d x d per head).
That trades 12 N C^2 multiply-adds a training step for 5 N C^2 + 9 C^3, and keeps x and three C x C matrices an image in
place of x, q, k and v. Biases are the moments of a constant channel.

Products are batched by image, or by head over the rows of all images, so that no operand is ever repeated in memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from components.models.xcit.fast.common import (
    ChannelWeights,
    Gradient,
    Normed,
    accumulate,
    add_branch,
    branch_gradient,
    first_derivative,
    fold_scale,
    sum_rows,
    unfold_scale,
    without_autocast,
)


class AddGram(Function):
    """Keeps x, and of each image Wqk G (2 C x C) and Wo blockdiag(A) Wv (C x C)."""

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
        moments, sums = _moments(normed)  # (B, C, C), (B, C), wide
        qk_weight, qk_bias = (part[: 2 * dim].to(moments.dtype) for part in (qkv_weight, qkv_bias))
        cross, totals = _cross(moments, sums, qk_weight, qk_bias, x.shape[1], num_heads)
        scores, squares = _read_scores(cross, totals, qk_weight, qk_bias)
        weights = ChannelWeights(scores, squares, temperature, weights_kept).out.to(dtype)
        folded_weight, folded_bias = fold_scale(gamma, out_weight, out_bias, dtype)
        mixed, mixed_bias = _mix_values(weights, qkv_weight[2 * dim :].to(dtype), qkv_bias[2 * dim :].to(dtype))
        whole = torch.bmm(folded_weight.expand(len(x), -1, -1), mixed)  # (B, C, C), of tokens to what they add
        shift = torch.addmm(folded_bias, mixed_bias, folded_weight.t())[:, None]  # (B, 1, C)
        ctx.save_for_backward(
            *(x, cross, totals, whole, scores, squares),
            *(norm_weight, norm_bias, qkv_weight, qkv_bias, temperature, out_weight, out_bias, gamma),
            *(path_kept, weights_kept),
        )
        ctx.eps, ctx.dtype = eps, dtype
        if path_kept is None and dtype == x.dtype:
            return accumulate(x + shift, normed, whole.transpose(1, 2))
        return add_branch(x, torch.baddbmm(shift, normed, whole.transpose(1, 2)), path_kept)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        x, cross, totals, whole, scores, squares, *parameters, path_kept, weights_kept = ctx.saved_tensors
        norm_weight, norm_bias, qkv_weight, qkv_bias, temperature, out_weight, out_bias, gamma = parameters
        dtype, kind, dim = ctx.dtype, qkv_weight.dtype, x.shape[2]
        normed = Normed(x, norm_weight, norm_bias, ctx.eps, dtype)
        grad_branch = branch_gradient(grad, path_kept, dtype)
        grad_whole = torch.bmm(grad_branch.transpose(1, 2), normed.out)  # (B, C, C)
        grad_shift = grad_branch.sum(1, dtype=cross.dtype)  # (B, C)

        weights = ChannelWeights(scores, squares, temperature, weights_kept)
        folded_weight = fold_scale(gamma, out_weight, out_bias, dtype)[0]
        grads_out, grads_value, grad_weights = _unmix(
            *(grad_whole, grad_shift.to(dtype), weights.out.to(dtype), folded_weight),
            *(qkv_weight[2 * dim :].to(dtype), qkv_bias[2 * dim :].to(dtype)),
        )
        grad_scores, own, grad_temperature = weights.backward(grad_weights.to(scores.dtype))
        qk_weight, qk_bias = (part[: 2 * dim].to(cross.dtype) for part in (qkv_weight, qkv_bias))
        grads_qk, grad_moments, grad_sums = _spread_moments(grad_scores, own, cross, totals, qk_weight, qk_bias)
        grad_normed = torch.baddbmm(grad_sums[:, None].to(dtype), grad_branch, whole)  # (B, N, C)
        accumulate(grad_normed, normed.out, grad_moments.to(dtype))
        grad_x, grad_norm_weight, grad_norm_bias = normed.backward(grad_normed)
        grad_gamma, grad_out_weight, grad_out_bias = unfold_scale(
            gamma, out_weight, out_bias, grads_out, sum_rows(grad_shift)
        )
        return (
            *(grad_x.add_(grad), grad_norm_weight, grad_norm_bias),
            *(torch.cat([qk.to(kind), value.to(kind)]) for qk, value in zip(grads_qk, grads_value, strict=True)),
            *(grad_temperature.to(temperature.dtype), grad_out_weight, grad_out_bias, grad_gamma),
            *(None, None, None, None),
        )


def _exchange(x: Tensor, count: int) -> Tensor:
    """(A, count R, K) -> (count, A R, K): a part of the rows becomes the batch, and the batch a part of the rows."""
    return torch.unflatten(x, 1, (count, -1)).transpose(0, 1).flatten(1, 2)


def _moments(normed: Tensor) -> tuple[Tensor, Tensor]:
    """X^T X (B, C, C) and X^T 1 (B, C), accumulated and returned in float32 at least."""
    wide = normed if normed.dtype == torch.float64 else normed.float()
    return torch.bmm(wide.transpose(1, 2), wide), wide.sum(1)


def _cross(
    moments: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, num_tokens: int, num_heads: int
) -> tuple[Tensor, Tensor]:
    """[q k]^T X (h, 2, B, d, C) and [q k]^T 1 (h, 2, B, d), from the tokens' moments and Wqk (2 C, C) with its bias."""
    cross = torch.bmm(weight.expand(len(moments), -1, -1), moments)  # (B, 2 C, C)
    cross.addcmul_(bias[:, None], sums[:, None])
    totals = torch.addmm(num_tokens * bias, sums, weight.t())  # (B, 2 C)
    rows = (torch.unflatten(part, 1, (2, num_heads, -1)) for part in (cross, totals))  # (B, 2, h, d, ...)
    by_head = [part.transpose(0, 2).contiguous() for part in rows]
    return by_head[0], by_head[1]


def _by_head(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of q, then of k, (2 C, ...) -> (h, 2, d, ...)."""
    return torch.unflatten(rows, 0, (2, num_heads, -1)).transpose(0, 1)


def _read_scores(cross: Tensor, totals: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, h, d, d) and squared channel norms (B, 2, h, d) from [q k]^T X and [q k]^T 1."""
    weight, bias = _by_head(weight, len(cross)), _by_head(bias, len(cross))  # (h, 2, d, C), (h, 2, d)
    scores = torch.bmm(cross[:, 0].flatten(1, 2), weight[:, 1].transpose(1, 2))  # (h, B d, d)
    scores = torch.unflatten(scores, 1, (cross.shape[2], -1))  # (h, B, d, d)
    scores.addcmul_(totals[:, 0, :, :, None], bias[:, 1, None, None])
    squares = (cross * weight[:, :, None]).sum(-1).addcmul_(totals, bias[:, :, None])  # (h, 2, B, d)
    # Rounding may leave a channel that is zero a little below it
    return scores.transpose(0, 1).contiguous(), squares.clamp_min_(0.0).transpose(0, 2).contiguous()


def _mix_values(weights: Tensor, value_weight: Tensor, value_bias: Tensor) -> tuple[Tensor, Tensor]:
    """blockdiag(A) Wv (B, C, C) and blockdiag(A) bv (B, C), from A (B, h, d, d), Wv (C, C) and bv (C,)."""
    num_heads = weights.shape[1]
    rows = weights.transpose(0, 1).flatten(1, 2)  # (h, B d, d)
    mixed = torch.bmm(rows, torch.unflatten(value_weight, 0, (num_heads, -1)))  # (h, B d, C)
    mixed_bias = torch.matmul(weights, torch.unflatten(value_bias, 0, (num_heads, -1, 1)))  # (B, h, d, 1)
    return _exchange(mixed, len(weights)), mixed_bias.flatten(1)


def _unmix(
    grad_whole: Tensor,
    grad_shift: Tensor,
    weights: Tensor,
    out_weight: Tensor,
    value_weight: Tensor,
    value_bias: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Gradients of Wo (C, C), of Wv (C, C) and bv (C,), and of A (B, h, d, d).

    grad_whole (B, C, C) and grad_shift (B, C) are those of Wo blockdiag(A) Wv and Wo blockdiag(A) bv.
    """
    batch, num_heads = weights.shape[:2]
    mixed, mixed_bias = _mix_values(weights, value_weight, value_bias)
    grad_out = torch.bmm(grad_whole, mixed.transpose(1, 2)).sum(0).addmm_(grad_shift.t(), mixed_bias)
    grad_mixed = torch.bmm(out_weight.t().expand(batch, -1, -1), grad_whole)  # (B, C, C)
    grad_rows = _exchange(grad_mixed, num_heads)  # (h, B d, C)
    grad_bias = torch.unflatten(grad_shift @ out_weight, 1, (num_heads, -1, 1))  # (B, h, d, 1)
    value_weight, value_bias = (torch.unflatten(part, 0, (num_heads, -1)) for part in (value_weight, value_bias))
    grad_weights = torch.bmm(grad_rows, value_weight.transpose(1, 2))  # (h, B d, d)
    grad_weights = torch.unflatten(grad_weights, 1, (batch, -1)).transpose(0, 1)  # (B, h, d, d)
    grad_value_weight = torch.bmm(weights.transpose(0, 1).flatten(1, 2).transpose(1, 2), grad_rows)  # (h, d, C)
    grad_value_bias = (weights * grad_bias).sum(dim=(0, 2))  # (h, d)
    grads_value = (grad_value_weight.flatten(0, 1), grad_value_bias.flatten())
    return grad_out, grads_value, grad_weights.addcmul(grad_bias, value_bias[:, None])


def _spread_moments(
    grad_scores: Tensor, own: Tensor, cross: Tensor, totals: Tensor, weight: Tensor, bias: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """From dS and the norms' factors: gradients of Wqk (2 C, C) and its bias, and the H (B, C, C) and h (B, C) by which
    tokens enter their own gradient, X H + h.

    With S = [[own_q, dS], [dS^T, own_k]] of a head, dWqk = S [q k]^T X and H is the sum of Wqk^T S Wqk over the heads.
    """
    batch, num_heads = grad_scores.shape[:2]
    own_query, own_key = own.diag_embed().unbind(1)  # (B, h, d, d)
    sides = [torch.cat([own_query, grad_scores], -1), torch.cat([grad_scores.transpose(2, 3), own_key], -1)]
    both = torch.cat(sides, -2).transpose(0, 1)  # (h, B, 2 d, 2 d)
    of_images = torch.unflatten(both, 3, (2, -1)).permute(0, 2, 3, 1, 4).flatten(2)  # (h, 2 d, 2 B d)
    grad_weight = torch.bmm(of_images, cross.flatten(1, 3))  # (h, 2 d, C)
    grad_bias = torch.bmm(of_images, totals.flatten(1)[..., None])  # (h, 2 d, 1)
    grads = (torch.unflatten(part, 1, (2, -1)).transpose(0, 1).flatten(0, 2) for part in (grad_weight, grad_bias))
    weight, bias = (_by_head(part, num_heads).flatten(1, 2) for part in (weight, bias))  # (h, 2 d, C), (h, 2 d)
    spread = _exchange(torch.bmm(both.flatten(1, 2), weight), batch)  # (B, h 2 d, C)
    grad_moments = torch.bmm(weight.flatten(0, 1).t().expand(batch, -1, -1), spread)
    spread_bias = torch.matmul(both, bias[:, None, :, None]).transpose(0, 1).flatten(1)  # (B, h 2 d)
    return (next(grads), next(grads).flatten()), grad_moments, spread_bias @ weight.flatten(0, 1)
