"""One Adafactor step of one parameter, in plain tensor operations: the specification of every faster path.

The optimizer describes each step as a list of `Update`s; a path is a function that carries such a list out. This one
runs on any device and layout, fetches no value, and needs one buffer of the gradient's size. The tests hold the others
against it and both against the paper.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Rate = Tensor | float

# The names that transformers gave the averages in the state.
SECOND_MOMENTS = ("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col")


@dataclass(slots=True)
class Update:
    """What one step asks of one parameter: tensors to change in place, and the numbers of the step."""

    param: Tensor
    grad: Tensor
    state: dict[str, Any]
    # The shape (..., N, M) under which the second moment is factored, None where it is kept whole.
    shape: tuple[int, ...] | None
    # rho_t; the rate alpha_t is rho_t times the parameter scale, if that is asked for.
    rho: float
    is_scaled: bool
    eps: tuple[float, float]
    # The weight of the new square in the second moment, 1 - beta2_t.
    weight: float
    clip_threshold: float
    beta1: float | None
    weight_decay: float
    # Seeds the stochastic rounding of this parameter in this step; None rounds to nearest.
    rounding_seed: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The precision of state and arithmetic."""
        return state_dtype(self.param)


def state_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def factored_shape(shape: torch.Size, min_dim_size_to_factor: int, factor_convolutions: bool) -> tuple[int, ...] | None:
    """Return the shape (..., N, M) whose last two dimensions are factored, None for a tensor that is not factored."""
    if len(shape) < 2:
        return None
    view = tuple(shape)
    if factor_convolutions and len(shape) > 2:
        view = (shape[0], shape[1:].numel())  # (O, I, kH, kW) -> (O, I * kH * kW)
    return view if min(view[-2:]) >= min_dim_size_to_factor else None


def second_moment_shapes(param: Tensor, shape: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    """Return the state's names (those of transformers) and shapes."""
    if shape is None:
        return {"exp_avg_sq": tuple(param.shape)}
    return {"exp_avg_sq_row": shape[:-1], "exp_avg_sq_col": shape[:-2] + shape[-1:]}


def init_state(state: dict[str, Any], param: Tensor, shape: tuple[int, ...] | None, has_momentum: bool) -> None:
    dtype = state_dtype(param)
    state["step"] = 0
    if has_momentum:
        state["exp_avg"] = torch.zeros_like(param, dtype=dtype)
    if shape is None:
        state["exp_avg_sq"] = torch.zeros_like(param, dtype=dtype)
    else:
        for name, size in second_moment_shapes(param, shape).items():
            state[name] = torch.zeros(size, dtype=dtype, device=param.device)


def norm_of(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the Frobenius norm, in `dtype` if one is given, by a norm of every row and a pairwise sum over rows.

    On a CPU one call of `vector_norm` adds in order: over the 16 million numbers of T5-small's embedding its float32
    result, and with it the rate that transformers applies, is 0.08 % too small.
    """
    if value.ndim < 2:
        return value.to(dtype or value.dtype).square().sum().sqrt_()
    row_norms: Tensor = torch.linalg.vector_norm(value, dim=-1, dtype=dtype)
    return row_norms.square_().sum().sqrt_()


def apply_plain(updates: list[Update]) -> list[Rate]:
    """Carry out `updates` one by one and return their rates alpha_t."""
    return [_apply(update) for update in updates]


def store(update: Update, value: Tensor, param: Tensor, generator: torch.Generator | None) -> None:
    """Write `value`, in the state's precision, to `param`, which is the update's parameter or a block of it."""
    if generator is not None:
        value = round_stochastically(value, generator)
    param.copy_(value)


def rounding_generator(update: Update) -> torch.Generator | None:
    """Return the source of this update's rounding bits, None where it rounds to nearest.

    A function of step and parameter alone: a resumed run draws the same bits, replicas that must stay equal do too,
    and dropout's generator is left where it was.
    """
    if update.rounding_seed is None or update.param.dtype != torch.bfloat16:
        return None
    return torch.Generator(update.param.device).manual_seed(update.rounding_seed)


def round_stochastically(value: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 to bfloat16, up with the probability of the part cut off, so that the mean is kept.

    Adds sixteen random bits below the last place that bfloat16 has, and cuts there.
    """
    noise = torch.randint(0, 1 << 16, value.shape, dtype=torch.int32, device=value.device, generator=generator)
    bits = noise.add_(value.contiguous().view(torch.int32)).bitwise_and_(-(1 << 16))
    return bits.view(torch.float32).to(torch.bfloat16)


def _apply(update: Update) -> Rate:
    param, state = update.param, update.state
    value, grad = param.to(update.dtype), update.grad.to(update.dtype)
    rate = _rate(value, update)
    if update.shape is None:
        change = _whole_change(grad, update, rate)
    else:
        change = _factored_change(grad.reshape(update.shape), update, rate).view(param.shape)
    if update.beta1 is not None:
        change = state["exp_avg"].mul_(update.beta1).add_(change, alpha=1 - update.beta1)
    if update.weight_decay != 0:
        change = _add_decay(change, value, update.weight_decay * rate)
    value.sub_(change)
    if value is not param:
        store(update, value, param, rounding_generator(update))
    return rate


def _add_decay(change: Tensor, value: Tensor, amount: Rate) -> Tensor:
    """Return `change + amount * value`, so that decay and update reach the parameter with one rounding.

    Applied by itself the decay, nearly the same in every step, is also rounded the same way in every step: in float32
    the parameter drifts by 1e-6 of its norm in 200 steps, and by more where the factor 1 - amount is rounded first.
    """
    if isinstance(amount, Tensor):
        return torch.addcmul(change, value, amount)
    return torch.add(change, value, alpha=amount)


def _whole_change(grad: Tensor, update: Update, rate: Rate) -> Tensor:
    """Advance a second moment that is kept whole and return the clipped update times `rate`."""
    second_moment: Tensor = update.state["exp_avg_sq"].lerp_(grad.square().add_(update.eps[0]), update.weight)
    change = second_moment.rsqrt().mul_(grad)
    return change.mul_(_clipped_rate(rate, norm_of(change), _max_norm(update)))


def _factored_change(grad: Tensor, update: Update, rate: Rate) -> Tensor:
    """Advance the factored second moment and return the clipped update times `rate`; `grad` is (..., N, M)."""
    rows, columns = update.state["exp_avg_sq_row"], update.state["exp_avg_sq_col"]  # (..., N), (..., M)
    buffer = grad.square()  # (..., N, M)
    rows.lerp_(buffer.mean(dim=-1).add_(update.eps[0]), update.weight)
    columns.lerp_(buffer.mean(dim=-2).add_(update.eps[0]), update.weight)

    # Roots before products: with eps1 = 1e-30 the quotient rows / mean can leave float32's range, these factors cannot.
    row_factor = rows.rsqrt().mul_(rows.mean(dim=-1, keepdim=True).sqrt_())  # (..., N)
    torch.mul(grad, columns.rsqrt().unsqueeze(-2), out=buffer)  # (..., N, M) * (..., 1, M)
    row_norms = torch.linalg.vector_norm(buffer, dim=-1).mul_(row_factor)  # (..., N)
    row_factor.mul_(_clipped_rate(rate, row_norms.square_().sum().sqrt_(), _max_norm(update)))
    return buffer.mul_(row_factor.unsqueeze(-1))  # (..., N, M) * (..., N, 1)


def _max_norm(update: Update) -> float:
    """Largest norm that an update may have: its root mean square must not exceed the threshold."""
    return update.clip_threshold * float(update.grad.numel() ** 0.5)


def _clipped_rate(rate: Rate, update_norm: Tensor, max_norm: float) -> Rate:
    """Return `rate / max(1, update_norm / max_norm)`; overwrites `update_norm`."""
    return rate * max_norm / update_norm.clamp_(min=max_norm)


def _rate(value: Tensor, update: Update) -> Rate:
    """Return alpha_t for the parameter `value`."""
    if not update.is_scaled:
        return update.rho
    root = value.numel() ** 0.5
    return norm_of(value).clamp_(min=update.eps[1] * root).mul_(update.rho / root)
