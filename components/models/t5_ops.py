"""The tensor operations of T5 that are worth writing by hand, so that a CPU core is kept at matrix products.

On one core the tanh form of GELU takes four times longer than the sigmoid that it equals. On an accelerator torch's own
kernels are used.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

from components.models.dropout import dropout, dropout_mask, is_hand_written


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
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


class _GatedGelu(Function):
    """gelu(x) = x (1 + tanh(u / 2)) / 2 = x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""

    LINEAR = 2.0 * (2.0 / torch.pi) ** 0.5
    CUBIC = LINEAR * 0.044715

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        slope = gate.square().mul_(_GatedGelu.CUBIC).add_(_GatedGelu.LINEAR)
        sigmoid = slope.mul_(gate).sigmoid_()
        ctx.save_for_backward(gate, value, sigmoid, *([] if mask is None else [mask]))
        out = (gate * sigmoid).mul_(value)
        return out if mask is None else out.mul_(mask)

    @staticmethod
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        gate, value, sigmoid = saved[:3]
        if len(saved) == 4:
            grad = grad * saved[3]
        gelu = gate * sigmoid
        grad_value = grad * gelu
        # d gelu / d gate = sigmoid + gelu (1 - sigmoid) u'(gate)
        slope = gate.square().mul_(3.0 * _GatedGelu.CUBIC).add_(_GatedGelu.LINEAR)
        slope.mul_(gelu.addcmul_(gelu, sigmoid, value=-1.0)).add_(sigmoid)
        return slope.mul_(value).mul_(grad), grad_value, None


def gated_gelu(gate: Tensor, value: Tensor, p: float) -> Tensor:
    """`dropout(gelu(gate) * value, p)` with the tanh form of GELU (arXiv:2002.05202), all of one shape."""
    if not is_hand_written(gate):
        return dropout(functional.gelu(gate, approximate="tanh") * value, p)
    gated: Tensor = _GatedGelu.apply(gate, value, dropout_mask(gate, p) if p > 0.0 else None)
    return gated
