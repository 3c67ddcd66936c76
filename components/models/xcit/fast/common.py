"""XCiT's branches as single steps of autograd that keep little: what they share, and the MLP's.

Each step computes `x + kept * gamma * branch(LayerNorm(x))` and saves `x` and the one product of its branch that would
be dear to compute again; norms, GELU and scales are repeated in the backward pass, matrix products and convolutions
never. LayerScale is folded into the branch's last weights W' = gamma W, so that
d gamma = rowsum(W * dW') + b * db', and the branch's own output is never kept. `kept` holds drop path's factors.

Saved weights and inputs must not change in place before the backward pass, as ever in autograd. A second derivative
is refused; the plain path has it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

Method = Callable[..., Any]
Gradient = Tensor | None

NORM_FLOOR = 1e-12  # of torch's normalize


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type of products with x: autocast's, or x's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def without_autocast(method: Method) -> Method:
    """Run a step's forward with autocast off, as its types are chosen by hand."""

    @wraps(method)
    def run(ctx: FunctionCtx, x: Tensor, *rest: object) -> object:
        with torch.autocast(x.device.type, enabled=False):
            return method(ctx, x, *rest)

    return run


def first_derivative(method: Method) -> Method:
    """A step's backward: autocast off, a second derivative refused."""
    return cast(Method, once_differentiable(without_autocast(method)))


class Normed:
    """LayerNorm of x over its last dimension in `dtype`, with what its backward pass needs; nothing of it is kept."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> None:
        self.x, self.weight, self.bias = x, weight, bias
        out, self.mean, self.rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        self.out = out.to(dtype)

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x (in a tensor of its own), weight and bias."""
        return torch.ops.aten.native_layer_norm_backward(  # type: ignore[no-any-return]
            grad.to(self.x.dtype),
            self.x,
            self.x.shape[-1:],
            self.mean,
            self.rstd,
            self.weight,
            self.bias,
            [True, True, True],
        )


def activate(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    """GELU of x, in x's own memory where no backward pass will ask for x."""
    return functional.gelu(x) if any(ctx.needs_input_grad) else torch.ops.aten.gelu_(x)


def fold_scale(gamma: Tensor | None, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """LayerScale folded into a weight (out, ...) and bias (out,), in `dtype`; None where it was folded for good."""
    if gamma is None:
        return weight.to(dtype), bias.to(dtype)
    column = gamma.view(-1, *[1] * (weight.dim() - 1))
    return (column * weight).to(dtype), (gamma * bias).to(dtype)


def unfold_scale(
    gamma: Tensor, weight: Tensor, bias: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gamma, weight and bias from those of the folded weight and bias, which are overwritten."""
    grad_weight, grad_bias = grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)
    grad_gamma = (grad_weight * weight).flatten(1).sum(1).addcmul_(grad_bias, bias)
    column = gamma.view(-1, *[1] * (weight.dim() - 1))
    return grad_gamma, grad_weight.mul_(column), grad_bias.mul_(gamma)


def add_branch(x: Tensor, branch: Tensor, kept: Tensor | None) -> Tensor:
    """x + kept * branch, in the type of x."""
    return x + branch if kept is None else torch.addcmul(x, branch.to(x.dtype), kept.to(x.dtype))


def branch_gradient(grad: Tensor, kept: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What of the step's gradient reaches its branch, contiguous, never in the incoming tensor."""
    return (grad if kept is None else grad * kept.to(grad.dtype)).to(dtype).contiguous()


def accumulate(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """out += a b for two or three dimensions, within the product; in this form torch's FlopCounterMode counts it."""
    return torch.addmm(out, a, b, out=out) if out.dim() == 2 else torch.baddbmm(out, a, b, out=out)


def sum_rows(x: Tensor) -> Tensor:
    """(..., C) -> (C,), in float32 at least."""
    return x.reshape(-1, x.shape[-1]).sum(0, dtype=torch.promote_types(x.dtype, torch.float32))


class ChannelWeights:
    """XCA's A = softmax(temperature * cosines) with dropout's factors `kept`, from scores and squared channel norms.

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


class _AddMlp(Function):
    """Keeps x and the hidden layer before GELU: five token maps at the usual ratio of 4."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context takes any attribute
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        gamma: Tensor | None,
        kept: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        normed = Normed(x, norm_weight, norm_bias, eps, dtype).out
        hidden = functional.linear(normed, weight1.to(dtype), bias1.to(dtype))  # (B, N, 4 C)
        ctx.save_for_backward(x, hidden, norm_weight, norm_bias, weight1, weight2, bias2, gamma, kept)
        ctx.eps = eps
        out_weight, out_bias = fold_scale(gamma, weight2, bias2, dtype)
        active = activate(ctx, hidden).flatten(0, 1)  # (B N, 4 C)
        if kept is None and dtype == x.dtype:
            out = (x + out_bias).flatten(0, 1)
            return accumulate(out, active, out_weight.t()).view_as(x)
        return add_branch(x, torch.addmm(out_bias, active, out_weight.t()).view_as(x), kept)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        x, hidden, norm_weight, norm_bias, weight1, weight2, bias2, gamma, kept = ctx.saved_tensors
        dtype = hidden.dtype
        grad_branch = branch_gradient(grad, kept, dtype).flatten(0, 1)  # (B N, C)
        hidden = hidden.flatten(0, 1)  # (B N, 4 C)
        grad_weight2 = grad_branch.t() @ functional.gelu(hidden)
        grads2 = unfold_scale(gamma, weight2, bias2, grad_weight2, sum_rows(grad_branch))
        grad_active = grad_branch @ fold_scale(gamma, weight2, bias2, dtype)[0]
        grad_hidden = torch.ops.aten.gelu_backward.grad_input(grad_active, hidden, grad_input=grad_active)
        normed = Normed(x, norm_weight, norm_bias, ctx.eps, dtype)
        grad_weight1 = (grad_hidden.t() @ normed.out.flatten(0, 1)).to(weight1.dtype)
        grad_x, grad_norm_weight, grad_norm_bias = normed.backward((grad_hidden @ weight1.to(dtype)).view_as(x))
        grad_bias1 = sum_rows(grad_hidden).to(weight1.dtype)
        grad_gamma, grad_weight2, grad_bias2 = grads2
        return (
            *(grad_x.add_(grad), grad_norm_weight, grad_norm_bias),
            *(grad_weight1, grad_bias1, grad_weight2, grad_bias2, grad_gamma),
            *(None, None, None),
        )


def add_mlp(
    x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, gamma: Tensor | None, kept: Tensor | None
) -> Tensor:
    """x + kept * gamma * fc2(gelu(fc1(norm(x)))) for x (B, N, C) and kept (B, 1, 1) or None."""
    x = residual(x, norm)
    added: Tensor = _AddMlp.apply(
        *(x, norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, gamma),
        *(kept, norm.eps, compute_dtype(x)),
    )
    return added


def residual(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """x as a contiguous residual stream in the type of the parameters: under autocast that is full precision."""
    return x.to(norm.weight.dtype).contiguous()
