"""Adafactor's steps in torch operations over blocks that fit the cache, for a CPU without numba and for other layouts.

The same two walks as the native kernel's (see `adafactor_numba`), with matrix products for sums: one product
[1; 1/R] @ g^2 adds a block of rows to both column sums. A whole step works in one buffer of 2 MB as long as a row fits
it; float16 and bfloat16 are converted block by block, in two more.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from components.optim.adafactor_update import Rate, Update, norm_of, rounding_generator, store

# Numbers in a block: smaller ones pay more calls, larger ones leave the cache.
_BLOCK = 1 << 19


class _Scratch:
    """Blocks of memory that every tensor of a step uses again."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def like(self, block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < block.numel():
            buffer = self._buffers[name, dtype] = torch.empty(max(_BLOCK, block.numel()), dtype=dtype)
        return buffer[: block.numel()].view(block.shape)

    def load(self, block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        """Return `block` in `dtype`, itself where it has it."""
        return block if block.dtype == dtype else self.like(block, dtype, name).copy_(block)


class _Layout(Protocol):
    """A way to walk over a tensor; `momentum` and `param` are cut as `write` cuts the gradient."""

    def read(self) -> float:
        """Advance the second moment and return the sum of squares of the unclipped update."""
        ...

    def write(self, scale: float) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
        """Yield blocks of parameter and momentum, and the change with a factor that is still to multiply it, if any."""
        ...


class _Batch:
    """The tensors of an update as B matrices (B, N, M)."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        assert update.shape is not None
        view = (-1, *update.shape[-2:])  # (B, N, M)
        self._update, self._scratch = update, scratch
        self._param, self._grad = _as_batch(update.param, view), _as_batch(update.grad, view)
        momentum = update.state.get("exp_avg")
        self._momentum = None if momentum is None else _as_batch(momentum, view)
        self._rows = update.state["exp_avg_sq_row"].view(view[:2])  # (B, N)
        self._columns = update.state["exp_avg_sq_col"].view(-1, view[2])  # (B, M)


class _Matrices(_Batch):
    """B matrices (B, N, M), each cut into blocks of rows."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        super().__init__(update, scratch)
        num_rows, width = self._grad.shape[1:]
        step = max(1, _BLOCK // width)
        self._parts = [slice(start, start + step) for start in range(0, num_rows, step)]

    def read(self) -> float:
        return sum(self._read_matrix(b) for b in range(len(self._grad)))

    def write(self, scale: float) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
        for b in reversed(range(len(self._grad))):
            rows = self._rows[b]
            row_factor = rows.rsqrt().mul_(scale * rows.mean().sqrt().item()).unsqueeze(1)  # (N, 1)
            column_factor = self._columns[b].rsqrt()
            for part in reversed(self._parts):
                grad = self._load(b, part)
                change = torch.mul(grad, column_factor, out=self._scratch.like(grad, grad.dtype, "square"))
                momentum = None if self._momentum is None else self._momentum[b, part]
                yield self._param[b, part], momentum, change, row_factor[part]

    def _read_matrix(self, b: int) -> float:
        update, rows, columns = self._update, self._rows[b], self._columns[b]
        num_rows, width = self._grad.shape[1:]
        sums = torch.zeros(2, width, dtype=update.dtype)
        weights = torch.ones(2, num_rows, dtype=update.dtype)  # [1; 1/R]
        for part in self._parts:
            grad = self._load(b, part)
            square = torch.mul(grad, grad, out=self._scratch.like(grad, grad.dtype, "square"))
            averages = square.sum(dim=1).div_(width).add_(update.eps[0])
            rows[part].lerp_(averages, update.weight)
            torch.reciprocal(rows[part], out=weights[1, part])
            sums.addmm_(weights[:, part], square)
        columns.lerp_(sums[0].div(num_rows).add_(update.eps[0]), update.weight)
        quotients = sums[1].double().div_(columns.double())
        return float(quotients.sum() * rows.double().mean())

    def _load(self, b: int, part: slice) -> Tensor:
        return self._scratch.load(self._grad[b, part], self._update.dtype, "grad")


class _WholeMatrices(_Batch):
    """Many small matrices (B, N, M), cut between them, so that row and column averages of a block are final at once."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        super().__init__(update, scratch)
        step = max(1, _BLOCK // self._grad[0].numel())
        self._parts = [slice(start, start + step) for start in range(0, len(self._grad), step)]

    def read(self) -> float:
        total, update = 0.0, self._update
        for part in self._parts:
            grad = self._scratch.load(self._grad[part], update.dtype, "grad")
            square = torch.mul(grad, grad, out=self._scratch.like(grad, grad.dtype, "square"))
            self._rows[part].lerp_(square.mean(dim=-1).add_(update.eps[0]), update.weight)
            self._columns[part].lerp_(square.mean(dim=-2).add_(update.eps[0]), update.weight)
            change, row_factor = self._change(part)
            total += torch.linalg.vector_norm(change, dim=-1).mul_(row_factor).square_().double().sum().item()
        return total

    def write(self, scale: float) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
        for part in reversed(self._parts):
            change, row_factor = self._change(part)
            momentum = None if self._momentum is None else self._momentum[part]
            yield self._param[part], momentum, change, row_factor.mul_(scale).unsqueeze(-1)

    def _change(self, part: slice) -> tuple[Tensor, Tensor]:
        """Return g * C^-1/2 (B, N, M) and sqrt(mean R / R) (B, N)."""
        rows = self._rows[part]
        grad = self._scratch.load(self._grad[part], self._update.dtype, "grad")
        column_factor = self._columns[part].rsqrt().unsqueeze(-2)
        change = torch.mul(grad, column_factor, out=self._scratch.like(grad, grad.dtype, "square"))
        return change, rows.rsqrt().mul_(rows.mean(dim=-1, keepdim=True).sqrt_())


class _Vector:
    """A tensor whose second moment is kept whole, seen as one vector."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        self._update, self._scratch = update, scratch
        self._param, self._grad = update.param.view(-1), update.grad.view(-1)
        momentum = update.state.get("exp_avg")
        self._momentum = None if momentum is None else momentum.view(-1)
        self._moment = update.state["exp_avg_sq"].view(-1)
        self._parts = [slice(start, start + _BLOCK) for start in range(0, len(self._grad), _BLOCK)]

    def read(self) -> float:
        total, update = 0.0, self._update
        for part in self._parts:
            grad = self._scratch.load(self._grad[part], update.dtype, "grad")
            square = torch.mul(grad, grad, out=self._scratch.like(grad, grad.dtype, "square"))
            self._moment[part].lerp_(square.add_(update.eps[0]), update.weight)
            total += self._change(part).square_().sum().item()
        return total

    def write(self, scale: float) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
        for part in reversed(self._parts):
            momentum = None if self._momentum is None else self._momentum[part]
            yield self._param[part], momentum, self._change(part).mul_(scale), None

    def _change(self, part: slice) -> Tensor:
        grad = self._scratch.load(self._grad[part], self._update.dtype, "grad")
        moment = self._moment[part]
        return torch.rsqrt(moment, out=self._scratch.like(grad, grad.dtype, "square")).mul_(grad)


def is_supported(update: Update) -> bool:
    """Whether the tensors are dense ones on a CPU that can be seen as matrices (or one vector) without a copy."""
    tensors = [update.param, update.grad, *([update.state["exp_avg"]] if "exp_avg" in update.state else [])]
    if any(tensor.device.type != "cpu" or type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors):
        return False
    # A matrix may have any strides, being a batch of one; other tensors must be contiguous to be seen as another shape.
    is_matrix = update.shape is not None and update.param.ndim == 2
    return is_matrix or all(tensor.is_contiguous() for tensor in tensors)


def apply_in_blocks(updates: list[Update]) -> list[Rate]:
    """Carry out `updates`, all supported, one by one and return their rates alpha_t."""
    scratch = _Scratch()
    return [_apply(update, scratch) for update in updates]


def _apply(update: Update, scratch: _Scratch) -> float:
    layout, count = _choose_layout(update, scratch), update.param.numel()
    rate = update.rho
    # These comparisons keep NaN, which max() would drop.
    if update.is_scaled:
        scale = norm_of(update.param, update.dtype).item() / count**0.5
        rate *= update.eps[1] if scale < update.eps[1] else scale
    excess = math.sqrt(layout.read() / count) / update.clip_threshold
    scale = rate if excess <= 1 else rate / excess
    generator = rounding_generator(update)
    for param, momentum, change, factor in layout.write(scale):
        value = scratch.load(param, update.dtype, "param")
        _subtract(update, value, momentum, change, factor, update.weight_decay * rate)
        if value is not param:
            store(update, value, param, generator)
    return rate


def _subtract(
    update: Update, value: Tensor, momentum: Tensor | None, change: Tensor, factor: Tensor | None, decay: float
) -> None:
    """Subtract `change * factor`, or the momentum it is averaged into, and the decay from `value` with one rounding."""
    if momentum is None and decay == 0 and factor is not None:
        value.addcmul_(change, factor, value=-1)
        return
    if factor is not None:
        change.mul_(factor)
    if momentum is not None:
        assert update.beta1 is not None
        momentum.mul_(update.beta1).add_(change, alpha=1 - update.beta1)
        change.copy_(momentum)
    value.sub_(change.add_(value, alpha=decay) if decay != 0 else change)


def _choose_layout(update: Update, scratch: _Scratch) -> _Layout:
    if update.shape is None:
        return _Vector(update, scratch)
    is_batch = len(update.shape) > 2 and 2 * update.shape[-2] * update.shape[-1] <= _BLOCK
    return _WholeMatrices(update, scratch) if is_batch else _Matrices(update, scratch)


def _as_batch(tensor: Tensor, view: tuple[int, ...]) -> Tensor:
    """View `tensor` as (B, N, M)."""
    return tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.view(view)
