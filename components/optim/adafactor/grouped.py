"""Adafactor's steps for a GPU: tensors of one shape are stacked and take each operation together.

A model has hundreds of tensors in a dozen shapes; a step of each by itself starts a dozen small kernels per tensor and
the processor that starts them becomes the limit. No value is fetched from the device. Plain tensor operations, so the
same code runs, and is tested, on a CPU.
"""

from collections import defaultdict
from collections.abc import Hashable

import torch
from torch import Tensor

from components.optim.adafactor.update import Rate, Update, norm_of, rounding_generator, store

# Numbers in one stack; its copy of the gradients is all the memory that a step needs, 64 MiB in float32.
_LARGEST_STACK = 1 << 24


def is_supported(update: Update) -> bool:
    """Whether the tensors are plain dense ones; a subclass may have rules of its own."""
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in (update.param, update.grad))


def apply_grouped(updates: list[Update]) -> list[Rate]:
    """Carry out `updates`, those of one shape and one set of options together, and return their rates alpha_t."""
    rates: list[Rate] = [0.0] * len(updates)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        groups[_likeness(update)].append(index)
    for indices in groups.values():
        size = max(1, _LARGEST_STACK // updates[indices[0]].param.numel())
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            stacked = _apply([updates[index] for index in chosen])
            for place, index in enumerate(chosen):
                rates[index] = stacked[place] if isinstance(stacked, Tensor) else stacked
    return rates


def _likeness(update: Update) -> Hashable:
    """What updates must share in order to be stacked."""
    param = update.param
    return (
        param.shape,
        update.shape,
        param.dtype,
        param.device,
        update.rho,
        update.is_scaled,
        update.eps,
        update.weight,
        update.clip_threshold,
        update.beta1,
        update.weight_decay,
    )


def _apply(updates: list[Update]) -> Rate:
    """Carry out the step of K tensors of one shape and return their rates (K,), or the one rate they share."""
    first = updates[0]
    dtype, shape = first.dtype, first.shape if first.shape is not None else first.param.shape
    grads = torch.stack([update.grad.to(dtype).reshape(shape) for update in updates])  # (K, ..., N, M)
    values = [update.param.to(dtype) for update in updates]
    rate = _rates(first, values)
    change = _factored_change(updates, grads) if first.shape is not None else _whole_change(updates, grads)
    _clip_and_scale(change, first, rate)
    changes = [one.view(first.param.shape) for one in change.unbind()]
    if first.beta1 is not None:
        momenta = [update.state["exp_avg"] for update in updates]
        torch._foreach_mul_(momenta, first.beta1)
        torch._foreach_add_(momenta, changes, alpha=1 - first.beta1)
        changes = momenta
    if first.weight_decay != 0:
        amounts = [first.weight_decay * one for one in _each(rate, len(updates))]
        # Decay and update reach the parameter with one rounding, as in the plain path.
        changes = [_add_scaled(*three) for three in zip(changes, values, amounts, strict=True)]
    torch._foreach_sub_(values, changes)
    for update, value in zip(updates, values, strict=True):
        if value is not update.param:
            store(update, value, update.param, rounding_generator(update))
    return rate


def _factored_change(updates: list[Update], grads: Tensor) -> Tensor:
    """Advance the averages and return the unclipped updates, written over `grads` (K, ..., N, M)."""
    eps, weight = updates[0].eps[0], updates[0].weight
    num_rows, width = grads.shape[-2:]
    # Norms are reductions: unlike a mean of squares they need no second copy of the gradients.
    new_rows = torch.linalg.vector_norm(grads, dim=-1).square_().div_(width).add_(eps)  # (K, ..., N)
    new_columns = torch.linalg.vector_norm(grads, dim=-2).square_().div_(num_rows).add_(eps)  # (K, ..., M)
    rows = _advance([update.state["exp_avg_sq_row"] for update in updates], new_rows, weight)
    columns = _advance([update.state["exp_avg_sq_col"] for update in updates], new_columns, weight)
    row_factor = rows.rsqrt().mul_(rows.mean(dim=-1, keepdim=True).sqrt_())
    return grads.mul_(columns.rsqrt_().unsqueeze(-2)).mul_(row_factor.unsqueeze(-1))


def _whole_change(updates: list[Update], grads: Tensor) -> Tensor:
    """Advance the whole second moments and return the unclipped updates, written over `grads` (K, ...)."""
    squares = grads.square().add_(updates[0].eps[0])
    states = [update.state["exp_avg_sq"] for update in updates]
    return grads.mul_(_advance(states, squares, updates[0].weight).rsqrt_())


def _advance(states: list[Tensor], new: Tensor, weight: float) -> Tensor:
    """Move each of `states` towards its slice of `new` by `weight`; return a stacked copy of them."""
    torch._foreach_lerp_(states, list(new.unbind()), weight)
    return torch.stack(states, out=new)


def _clip_and_scale(change: Tensor, update: Update, rate: Rate) -> None:
    """Multiply each of the K updates by its rate, less what its root mean square exceeds the threshold by."""
    max_norm = update.clip_threshold * update.grad.numel() ** 0.5
    rows = change if change.ndim > 1 else change.unsqueeze(1)  # (K, ..., M); numbers alone are rows of one
    squares = torch.linalg.vector_norm(rows, dim=-1).square_().view(len(rows), -1).sum(dim=1)  # (K,)
    factors = rate * max_norm / squares.sqrt_().clamp_(min=max_norm)
    change.view(len(change), -1).mul_(factors.unsqueeze(1))


def _rates(update: Update, values: list[Tensor]) -> Rate:
    """Return alpha_t of each parameter (K,), or rho_t where it is not scaled."""
    if not update.is_scaled:
        return update.rho
    root = update.param.numel() ** 0.5
    # One kernel for all on a GPU, where it adds in a tree.
    norms = torch.stack(torch._foreach_norm(values) if values[0].is_cuda else [norm_of(value) for value in values])
    return norms.clamp_(min=update.eps[1] * root).mul_(update.rho / root)


def _each(rate: Rate, count: int) -> list[Rate]:
    return list(rate.unbind()) if isinstance(rate, Tensor) else [rate] * count


def _add_scaled(change: Tensor, value: Tensor, amount: Rate) -> Tensor:
    if isinstance(amount, Tensor):
        return torch.addcmul(change, value, amount)
    return torch.add(change, value, alpha=amount)
