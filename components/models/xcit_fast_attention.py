"""Cross-covariance attention as single steps of autograd, in two forms chosen by shape.

Both fold what follows the weights A (d x d per head) into one matrix per image, M = Wo blockdiag(A), so that the mixed
values are not kept. The standard form keeps q, k and v. The Gram form needs of all tokens X only their second moments
G = X^T X: the scores q^T k are Wq G Wk^T, the squared norms of q's and k's channels its like, and the output is
X (M Wv)^T. It trades 12 N C^2 multiply-adds a training step for 5 N C^2 + 9 C^3, and keeps x and three C x C matrices
an image in place of x, q, k and v. Biases are the moments of a constant channel.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from components.models.xcit_fast import (
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

# Tokens per channel from which the Gram form is the cheaper, as measured on a CPU core. Its moments stay in float32,
# whose products are many times dearer than those of half precision.
GRAM_FROM = 1.5
GRAM_FROM_INFERENCE = 1.85
GRAM_FROM_HALF = 8.0
# Numbers of one image's head up to which a CPU writes a product and then copies it: straight into a strided place
# torch multiplies image by image.
SMALL = 1024
NORM_FLOOR = 1e-12  # of torch's normalize


def is_gram(num_tokens: int, dim: int, dtype: torch.dtype) -> bool:
    """Whether XCA takes the Gram form for inputs (B, num_tokens, dim) multiplied in `dtype`."""
    if dtype.itemsize == 2:
        return num_tokens >= dim * GRAM_FROM_HALF
    return num_tokens >= dim * (GRAM_FROM if torch.is_grad_enabled() else GRAM_FROM_INFERENCE)


class Weights:
    """A = softmax(temperature * cosines) with dropout's factors `kept`, from scores and squared channel norms.

    scores (B, h, d, d) are q^T k; squares (B, 2, h, d) those of q's and k's channels.
    """

    def __init__(self, scores: Tensor, squares: Tensor, temperature: Tensor, kept: Tensor | None) -> None:
        inverse = squares.sqrt().clamp_min_(NORM_FLOOR).reciprocal_()
        self.inverse, self.temperature, self.kept = inverse, temperature.to(scores.dtype), kept
        self.cosines = scores * inverse[:, 0, :, :, None] * inverse[:, 1, :, None, :]
        self.soft = (self.cosines * self.temperature).softmax(dim=-1)
        self.out = self.soft if kept is None else self.soft * kept.to(self.soft.dtype)

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of scores (B, h, d, d) and temperature (h, 1, 1), and the factors (B, 2, h, d) by which q's and
        k's own channels enter their gradients: twice the gradients of the squares."""
        if self.kept is not None:
            grad = grad * self.kept.to(grad.dtype)
        grad_logits = torch.ops.aten._softmax_backward_data(grad, self.soft, -1, self.soft.dtype)
        moved = grad_logits * self.cosines
        grad_cosines = grad_logits * self.temperature
        moved_cosines = moved * self.temperature
        own = torch.stack([moved_cosines.sum(-1), moved_cosines.sum(-2)], dim=1).neg_()
        # Where the norm is below its floor it is a constant
        own = own * self.inverse.square() * (self.inverse < 1.0 / NORM_FLOOR)
        grad_scores = grad_cosines * self.inverse[:, 0, :, :, None] * self.inverse[:, 1, :, None, :]
        return grad_scores, own, moved.sum(dim=(0, 2, 3)).view_as(self.temperature)


def to_heads(matrix: Tensor, num_heads: int) -> Tensor:
    """(..., C, K) -> (..., h, d, K): rows of each head."""
    return torch.unflatten(matrix, -2, (num_heads, -1))


def fold_weights(out_weight: Tensor, weights: Tensor) -> Tensor:
    """M = Wo blockdiag(A): (C, C) and (B, h, d, d) -> (B, C, C)."""
    batch, heads, width, _ = weights.shape
    by_head = torch.unflatten(out_weight, 1, (heads, width)).transpose(0, 1)  # (h, C, d)
    beside = weights.to(out_weight.dtype).permute(1, 2, 0, 3).reshape(heads, width, -1)  # (h, d, B d)
    folded = torch.unflatten(torch.bmm(by_head, beside), 2, (batch, width))  # (h, C, B, d)
    return folded.permute(2, 1, 0, 3).reshape(batch, -1, heads * width)


def unfold_weights(out_weight: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of Wo (C, C) and A (B, h, d, d) from that of M (B, C, C)."""
    batch, heads, width, _ = weights.shape
    by_head = torch.unflatten(grad, 2, (heads, width))  # (B, C, h, d)
    rows = by_head.permute(2, 1, 0, 3).reshape(heads, -1, batch * width)  # (h, C, B d)
    stacked = weights.to(grad.dtype).permute(1, 0, 3, 2).reshape(heads, batch * width, width)  # (h, B d, d), A^T
    grad_out = torch.bmm(rows, stacked).transpose(0, 1).flatten(1)  # (C, h d)
    out_by_head = torch.unflatten(out_weight, 1, (heads, width)).permute(1, 2, 0)  # (h, d, C)
    grad_weights = torch.bmm(out_by_head, rows.to(out_weight.dtype))  # (h, d, B d)
    return grad_out, torch.unflatten(grad_weights, 2, (batch, width)).permute(2, 0, 1, 3)


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
        weights = Weights(scores, squares, temperature, weights_kept).out
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
        weights = Weights(scores, squares, temperature, weights_kept)
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


class _AddGram(Function):
    """Keeps x, and of each image Wqk G (2 C x C), M and M Wv."""

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
        dim = x.shape[2]
        normed = Normed(x, norm_weight, norm_bias, eps, dtype).out
        moments, sums = _moments(normed)  # (B, C, C), (B, C), wide
        wide = moments.dtype
        qk_weight, qk_bias = qkv_weight[: 2 * dim].to(wide), qkv_bias[: 2 * dim].to(wide)
        # Wqk G + b s^T, which is [q k]^T X, and its column sums; G is symmetric
        cross = torch.matmul(moments, qk_weight.t()).transpose(1, 2)  # (B, 2 C, C)
        cross = cross + qk_bias[:, None] * sums[:, None]
        totals = torch.addmm(x.shape[1] * qk_bias, sums, qk_weight.t())  # (B, 2 C)
        scores, squares = _read_scores(cross, totals, qk_weight, qk_bias, len(temperature))
        weights = Weights(scores, squares, temperature, weights_kept).out
        folded_weight, folded_bias = fold_scale(gamma, out_weight, out_bias, dtype)
        mix = fold_weights(folded_weight, weights)  # (B, C, C), M
        value_weight, value_bias = qkv_weight[2 * dim :].to(dtype), qkv_bias[2 * dim :].to(dtype)
        whole = torch.matmul(mix, value_weight)  # (B, C, C), M Wv
        shift = (torch.matmul(mix, value_bias) + folded_bias)[:, None]  # (B, 1, C)
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
        dtype, dim = ctx.dtype, x.shape[2]
        normed = Normed(x, norm_weight, norm_bias, ctx.eps, dtype)
        grad_branch = branch_gradient(grad, path_kept, dtype)
        grad_normed = torch.bmm(grad_branch, whole)
        grad_whole = torch.bmm(grad_branch.transpose(1, 2), normed.out)  # (B, C, C)
        grad_shift = grad_branch.sum(1, dtype=cross.dtype).to(dtype)  # (B, C)

        weights = Weights(scores, squares, temperature, weights_kept)
        folded_weight = fold_scale(gamma, out_weight, out_bias, dtype)[0]
        mix = fold_weights(folded_weight, weights.out)  # (B, C, C)
        value_weight, value_bias = qkv_weight[2 * dim :].to(dtype), qkv_bias[2 * dim :].to(dtype)
        grad_value_weight = mix.flatten(0, 1).t() @ grad_whole.flatten(0, 1)
        grad_value_bias = torch.einsum("boc,bo->c", mix, grad_shift)
        grad_mix = torch.matmul(grad_whole, value_weight.t()).addcmul_(grad_shift[:, :, None], value_bias)
        grad_out, grad_weights = unfold_weights(folded_weight, weights.out, grad_mix)
        grad_scores, own, grad_temperature = weights.backward(grad_weights.to(scores.dtype))

        grad_qk, grad_moments, grad_sums = _spread_moments(grad_scores, own, cross, totals, qkv_weight, qkv_bias)
        accumulate(grad_normed, normed.out, grad_moments.to(dtype)).add_(grad_sums[:, None].to(dtype))
        grad_x, grad_norm_weight, grad_norm_bias = normed.backward(grad_normed)
        grad_gamma, grad_out_weight, grad_out_bias = unfold_scale(
            gamma, out_weight, out_bias, grad_out, sum_rows(grad_shift)
        )
        kind = qkv_weight.dtype
        return (
            *(grad_x.add_(grad), grad_norm_weight, grad_norm_bias),
            torch.cat([grad_qk[0].to(kind), grad_value_weight.to(kind)]),
            torch.cat([grad_qk[1].to(kind), grad_value_bias.to(kind)]),
            *(grad_temperature.to(temperature.dtype), grad_out_weight, grad_out_bias, grad_gamma),
            *(None, None, None, None),
        )


def _moments(normed: Tensor) -> tuple[Tensor, Tensor]:
    """X^T X (B, C, C) and X^T 1 (B, C), accumulated and returned in float32 at least."""
    wide = normed if normed.dtype == torch.float64 else normed.float()
    return torch.bmm(wide.transpose(1, 2), wide), wide.sum(1)


def _read_scores(cross: Tensor, totals: Tensor, weight: Tensor, bias: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Scores (B, h, d, d) and squared channel norms (B, 2, h, d) from [q k]^T X and [q k]^T 1."""
    dim = weight.shape[1]
    query_cross = to_heads(cross[:, :dim], num_heads)  # (B, h, d, C)
    key_weight = to_heads(weight[dim:], num_heads).transpose(1, 2)  # (h, C, d)
    scores = torch.matmul(query_cross, key_weight)
    query_totals = torch.unflatten(totals[:, :dim], 1, (num_heads, -1))  # (B, h, d)
    scores = scores.addcmul_(query_totals[..., None], torch.unflatten(bias[dim:], 0, (num_heads, -1))[:, None])
    squares = (cross * weight).sum(2).addcmul_(totals, bias)  # (B, 2 C)
    # Rounding may leave a channel that is zero a little below it
    return scores, torch.unflatten(squares.clamp_min_(0.0), 1, (2, num_heads, -1))


def _spread_moments(
    grad_scores: Tensor, own: Tensor, cross: Tensor, totals: Tensor, qkv_weight: Tensor, qkv_bias: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """From dS and the norms' factors: gradients of Wqk and its bias, and the H (B, C, C) and h (B, C) by which tokens
    enter their own gradient, X H + h."""
    num_heads, width = grad_scores.shape[1:3]
    dim = num_heads * width
    weight, bias = qkv_weight[: 2 * dim].to(cross.dtype), qkv_bias[: 2 * dim].to(cross.dtype)
    factors = own.flatten(1)  # (B, 2 C)
    swap = torch.stack([grad_scores, grad_scores.transpose(2, 3)], dim=1)  # (B, 2, h, d, d)

    def crossed(matrix: Tensor) -> Tensor:
        """dS k-side and dS^T q-side of a matrix ([B,] 2 C, K), plus each row's own factor -> (B, 2 C, K)."""
        sides = torch.unflatten(matrix, -2, (2, num_heads, width)).flip(-4)  # k's rows where q's were
        return (swap @ sides).flatten(1, 3).addcmul_(factors[..., None], matrix)

    grad_weight = crossed(cross).sum(0)  # (2 C, C): dq^T X
    grad_bias = crossed(totals[..., None]).sum((0, 2))  # (2 C,)
    spread = crossed(weight)  # (B, 2 C, C)
    grad_moments = torch.matmul(weight.t(), spread)
    grad_sums = torch.matmul(bias, spread)  # (B, C)
    return (grad_weight, grad_bias), grad_moments, grad_sums


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
    step = _AddGram if is_gram(x.shape[1], x.shape[2], dtype) else _AddStandard
    added: Tensor = step.apply(
        *(x, norm.weight, norm.bias, qkv.weight, qkv.bias, temperature, proj.weight, proj.bias, gamma),
        *(path_kept, weights_kept, norm.eps, dtype),
    )
    return added
