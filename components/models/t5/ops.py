"""The tensor operations of T5 that are worth writing by hand, so that a CPU core is kept at matrix products.

On one core the tanh form of GELU takes four times longer than the sigmoid that it equals. On an accelerator torch's own
kernels are used.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

from components.models.shared.dropout import dropout, dropout_mask, is_hand_written

# Numbers that torch's softmax reads at once; through shorter rows it walks number by number.
_REGISTER = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # By a norm, as a square and its mean are two passes and a tensor more
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        unit, inverse, weight = saved
        product = grad * unit
        mean = (product @ weight).div_(weight.numel()).unsqueeze(-1)
        grad_x = (grad * weight).addcmul_(unit, mean, value=-1.0).mul_(inverse)
        return grad_x, product.sum(0), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (arXiv:1910.07467) of x (N, D), without mean or bias, in the type of `weight`.

    The statistics are taken in float32, or in float64 for float64 input.
    """
    if is_hand_written(x) and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64):
        normed: Tensor = _RmsNorm.apply(x, weight, eps)
        return normed
    wide = x if x.dtype == torch.float64 else x.float()
    return functional.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(weight.dtype)


def _softmax(x: Tensor) -> Tensor:
    """Over the last dimension; five times as fast as torch's where that is shorter than a register, as words' are."""
    if x.shape[-1] >= _REGISTER:
        return x.softmax(-1)
    powers = (x - x.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


class _Attention(Function):
    """One node for what would be a dozen; of dropout it keeps the mask alone, beside the weights."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        p: float,
    ) -> Tensor:
        batch, heads, length, width = query.shape
        q, k, v = (x.reshape(batch * heads, -1, width) for x in (query, key, value))  # (B * H, Q or S, K)
        # Not in place: a plan that keeps the results of products would find this one changed
        scores = torch.bmm(q, k.transpose(1, 2))  # (B * H, Q, S)
        if bias is not None:
            scores = (scores.view(batch, heads, length, -1) + bias).view_as(scores)
        weights = _softmax(scores)
        mask = dropout_mask(weights, p) if p > 0.0 else None
        ctx.save_for_backward(q, k, v, weights, *([] if mask is None else [mask]))
        ctx.bias_shape = None if bias is None else bias.shape
        kept = weights if mask is None else weights * mask
        context = torch.bmm(kept, v).view(batch, heads, length, width)
        return context.transpose(1, 2).reshape(batch, length, heads * width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, weights, *masks = ctx.saved_tensors
        batch, length, _ = grad.shape
        shape = (batch, len(q) // batch, -1, q.shape[-1])  # (B, H, Q or S, K)
        g = grad.view(batch, length, *shape[1::2]).transpose(1, 2).reshape(q.shape)
        kept = weights * masks[0] if masks else weights  # again, rather than kept
        grad_value = torch.bmm(kept.transpose(1, 2), g)
        # Softmax's: (dW - sum(dW W)) W, where a mask of dropout is a factor of dW
        grad_scores = torch.bmm(g, v.transpose(1, 2)).mul_(kept)
        grad_scores.addcmul_(weights, grad_scores.sum(-1, keepdim=True), value=-1.0)
        grad_bias = None
        if ctx.needs_input_grad[3]:
            grad_bias = grad_scores.view(*shape[:2], length, -1).sum_to_size(ctx.bias_shape)
        grad_query, grad_key = torch.bmm(grad_scores, k), torch.bmm(grad_scores.transpose(1, 2), q)
        return grad_query.view(shape), grad_key.view(shape), grad_value.view(shape), grad_bias, None


def fused_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """dropout(softmax(query key^T + bias), p) value, float32 or float64 on a CPU; shapes as in `t5_layers.attend`."""
    context: Tensor = _Attention.apply(query, key, value, bias, p)
    return context


class _GatedGelu(Function):
    """gelu(x) = x (1 + tanh(u / 2)) / 2 = x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""

    LINEAR = 2.0 * (2.0 / torch.pi) ** 0.5
    CUBIC = LINEAR * 0.044715

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, value, *([] if mask is None else [mask]))
        out = _GatedGelu.sigmoid(gate).mul_(gate).mul_(value)
        return out if mask is None else out.mul_(mask)

    @staticmethod
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        gate, value, *masks = saved
        if masks:
            grad = grad * masks[0]
        sigmoid = _GatedGelu.sigmoid(gate)  # again, rather than kept: a third of what would be
        gelu = gate * sigmoid
        grad_value = grad * gelu
        # d gelu / d gate = sigmoid + gelu (1 - sigmoid) u'(gate)
        slope = torch.addcmul(gate.new_tensor(_GatedGelu.LINEAR), gate, gate, value=3.0 * _GatedGelu.CUBIC)
        torch.addcmul(sigmoid, slope, gelu.addcmul_(gelu, sigmoid, value=-1.0), out=slope)
        return slope.mul_(value).mul_(grad), grad_value, None

    @staticmethod
    def sigmoid(gate: Tensor) -> Tensor:
        """sigmoid(u)."""
        slope = torch.addcmul(gate.new_tensor(_GatedGelu.LINEAR), gate, gate, value=_GatedGelu.CUBIC)
        return slope.mul_(gate).sigmoid_()


def gated_gelu(gate: Tensor, value: Tensor, p: float) -> Tensor:
    """`dropout(gelu(gate) * value, p)` with the tanh form of GELU (arXiv:2002.05202), all of one shape."""
    if not is_hand_written(gate):
        return dropout(functional.gelu(gate, approximate="tanh") * value, p)
    gated: Tensor = _GatedGelu.apply(gate, value, dropout_mask(gate, p) if p > 0.0 else None)
    return gated
