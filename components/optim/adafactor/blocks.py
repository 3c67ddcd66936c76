"""Adafactor's steps in torch operations over blocks that fit the cache, for a CPU without numba and for other layouts.

The same two walks as the native kernel's (see `adafactor_numba`), with matrix products for sums: one product
[1; 1/R] @ g^2 adds a block of rows to both column sums. What has the length of a row or a column is NumPy's work: its
calls cost a quarter of torch's, and a model has hundreds of tensors. A whole step works in one buffer of 2 MB as long
as a row fits it; float16 and bfloat16 are converted block by block, in two more.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.optim.adafactor.update import Rate, Update, norm_of, rounding_generator, store

Array = NDArray[Any]
# A block of the parameter and of its momentum, and the change with a factor that is still to multiply it, if any.
Block = tuple[Tensor, Tensor | None, Tensor, Tensor | None]

# Numbers in a block: smaller ones pay more calls, larger ones leave the cache.
_BLOCK = 1 << 19
# Parts of a block whose columns are summed apart, so that threads find the rows they squared in their own caches; one
# product is shared out by columns, at four times the cost.
_GROUPS = 4


class _Scratch:
    """Memory that every tensor of a step uses again."""

    def __init__(self, updates: Sequence[Update]) -> None:
        self._size = max([_BLOCK, *(update.shape[-1] for update in updates if update.shape is not None)])
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._cuts: dict[tuple[int, int, torch.dtype], _Cut] = {}

    def like(self, block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        return self.buffer(dtype, name)[: block.numel()].view(block.shape)

    def load(self, block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
        """Return `block` in `dtype`, itself where it has it."""
        return block if block.dtype == dtype else self.like(block, dtype, name).copy_(block)

    def cut(self, num_rows: int, width: int, dtype: torch.dtype) -> "_Cut":
        key = (num_rows, width, dtype)
        if key not in self._cuts:
            self._cuts[key] = _Cut(num_rows, width, self.buffer(dtype, "square"))
        return self._cuts[key]

    def buffer(self, dtype: torch.dtype, name: str) -> Tensor:
        if (name, dtype) not in self._buffers:
            self._buffers[name, dtype] = torch.empty(self._size, dtype=dtype)
        return self._buffers[name, dtype]


class _Cut:
    """Where matrices (N, M) of a shape are cut into blocks of rows, and what a step needs beside these."""

    def __init__(self, num_rows: int, width: int, buffer: Tensor) -> None:
        self._step = max(1, _BLOCK // width)
        self.parts = [slice(start, min(num_rows, start + self._step)) for start in range(0, num_rows, self._step)]
        weights = buffer.new_ones(2, num_rows)  # [1; 1/R]
        self.inverse: Array = weights[1].numpy()  # (N,)
        sums = buffer.new_empty(_GROUPS, 2, width)
        self.sums: Array = sums.numpy()
        self.squares, self.products = [], []
        for block_weights in torch.split(weights, self._step, dim=1):
            size = block_weights.shape[1]
            square = buffer[: size * width].view(size, width)  # one memory for all
            groups = _GROUPS if size % _GROUPS == 0 else 1
            grouped_weights = block_weights.view(2, groups, -1).transpose(0, 1)  # (G, 2, n / G)
            self.squares.append(square)
            self.products.append((sums[:groups], grouped_weights, square.view(groups, -1, width)))
        self.row_factors = torch.split(weights[1].unsqueeze(1), self._step)  # in the memory of 1/R
        self.column_factor = buffer.new_empty(width)
        self.column_array: Array = self.column_factor.numpy()

    def blocks(self, matrix: Tensor) -> Sequence[Tensor]:
        return (matrix,) if len(self.parts) == 1 else torch.split(matrix, self._step)


class _Layout(Protocol):
    """A way to walk over a tensor."""

    def read(self) -> tuple[float, float]:
        """Advance the second moment; return the sums of squares of the parameter and of the unclipped update.

        The parameter's is 0 where the rate does not depend on it.
        """
        ...

    def write(self, scale: float) -> Iterator[Block]:
        """Yield the blocks of the step, whose change is still to be subtracted, in reverse."""
        ...


class _Matrices:
    """B matrices (B, N, M), each cut into blocks of rows."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        assert update.shape is not None
        num_rows, width = update.shape[-2:]
        self._update, self._scratch, self._dtype = update, scratch, update.dtype
        self._cut = scratch.cut(num_rows, width, self._dtype)
        self._params, self._grads = self._matrices(update.param), self._matrices(update.grad)  # B of (N, M)
        momentum = update.state.get("exp_avg")
        self._momenta = None if momentum is None else self._matrices(momentum)
        self._rows: Array = update.state["exp_avg_sq_row"].numpy().reshape(-1, num_rows)  # (B, N)
        self._columns: Array = update.state["exp_avg_sq_col"].numpy().reshape(-1, width)  # (B, M)
        self._means = [0.0] * len(self._rows)
        self._kept: list[Tensor] | None = None

    def read(self) -> tuple[float, float]:
        updates = 0.0
        for b in range(len(self._rows)):
            self._read_matrix(b)
            updates += self._finish_matrix(b)
        if len(self._rows) == len(self._cut.parts) == 1:
            # The only block, so now: the parameter's squares would push the gradient out of the cache.
            self._kept = list(self._unscaled_changes(0))
        return self._param_squares() if self._update.is_scaled else 0.0, updates

    def write(self, scale: float) -> Iterator[Block]:
        cut = self._cut
        for b in reversed(range(len(self._rows))):
            self._prepare_rows(b, scale)
            params = cut.blocks(self._params[b])
            momenta = [None] * len(params) if self._momenta is None else cut.blocks(self._momenta[b])
            changes = self._unscaled_changes(b) if self._kept is None else self._kept
            yield from zip(params[::-1], momenta[::-1], changes, cut.row_factors[::-1], strict=True)

    def _read_matrix(self, b: int) -> None:
        """Advance the rows' averages and sum up the columns' squares, plain and over the rows' averages."""
        cut, rows = self._cut, self._rows[b]
        cut.sums.fill(0)
        for k, (part, block) in enumerate(zip(cut.parts, cut.blocks(self._grads[b]), strict=True)):
            grad = self._scratch.load(block, self._dtype, "grad")
            square = torch.mul(grad, grad, out=cut.squares[k])
            self._advance(rows[part], square.sum(dim=1).numpy(), square.shape[1])
            np.reciprocal(rows[part], out=cut.inverse[part])
            sums, weights, groups = cut.products[k]
            sums.baddbmm_(weights, groups)

    def _finish_matrix(self, b: int) -> float:
        """Advance the columns' averages and return the sum of squares of the unclipped update."""
        rows, columns, (sums, weighted_sums) = self._rows[b], self._columns[b], np.add.reduce(self._cut.sums)
        self._means[b] = float(np.add.reduce(rows, dtype=np.float64)) / len(rows)
        self._advance(columns, sums, len(rows))
        quotients = np.divide(weighted_sums, columns, dtype=np.float64)
        return float(np.add.reduce(quotients)) * self._means[b]

    def _advance(self, averages: Array, sums: Array, count: int) -> None:
        """Move `averages` towards `sums / count`; overwrites `sums`."""
        sums /= count
        sums += self._update.eps[0]
        sums -= averages
        sums *= self._update.weight
        averages += sums

    def _param_squares(self) -> float:
        squares = 0.0
        for block in (block for matrix in self._params for block in self._cut.blocks(matrix)):
            norms = torch.linalg.vector_norm(block, dim=1, dtype=self._dtype).numpy()
            squares += float(norms @ norms)
        return squares

    # Roots before products, as in the specification: quotients can leave float32's range.

    def _prepare_rows(self, b: int, scale: float) -> None:
        """Set the row factors to R^-1/2 times what all rows have in common."""
        np.sqrt(self._rows[b], out=self._cut.inverse)
        np.reciprocal(self._cut.inverse, out=self._cut.inverse)
        self._cut.inverse *= scale * math.sqrt(self._means[b])

    def _unscaled_changes(self, b: int) -> Iterator[Tensor]:
        """Yield g * C^-1/2 by blocks, the last first, all in the same memory."""
        np.sqrt(self._columns[b], out=self._cut.column_array)
        np.reciprocal(self._cut.column_array, out=self._cut.column_array)
        blocks = zip(self._cut.blocks(self._grads[b]), self._cut.squares, strict=True)
        for block, change in reversed(list(blocks)):
            grad = self._scratch.load(block, self._dtype, "grad")
            yield torch.mul(grad, self._cut.column_factor, out=change)

    def _matrices(self, tensor: Tensor) -> Sequence[Tensor]:
        assert self._update.shape is not None
        return (tensor,) if tensor.ndim == 2 else tensor.view(-1, *self._update.shape[-2:]).unbind()


class _WholeMatrices:
    """Many small matrices (B, N, M), cut between them, so that row and column averages of a block are final at once."""

    def __init__(self, update: Update, scratch: _Scratch) -> None:
        assert update.shape is not None
        view = (-1, *update.shape[-2:])  # (B, N, M)
        self._update, self._scratch = update, scratch
        self._param, self._grad = update.param.view(view), update.grad.view(view)
        momentum = update.state.get("exp_avg")
        self._momentum = None if momentum is None else momentum.view(view)
        self._rows = update.state["exp_avg_sq_row"].view(view[:2])  # (B, N)
        self._columns = update.state["exp_avg_sq_col"].view(-1, view[2])  # (B, M)
        step = max(1, _BLOCK // self._grad[0].numel())
        self._parts = [slice(start, start + step) for start in range(0, len(self._grad), step)]

    def read(self) -> tuple[float, float]:
        total, update = 0.0, self._update
        for part in self._parts:
            grad = self._scratch.load(self._grad[part], update.dtype, "grad")
            square = torch.mul(grad, grad, out=self._scratch.like(grad, grad.dtype, "square"))
            self._rows[part].lerp_(square.mean(dim=-1).add_(update.eps[0]), update.weight)
            self._columns[part].lerp_(square.mean(dim=-2).add_(update.eps[0]), update.weight)
            change, row_factor = self._change(part)
            total += torch.linalg.vector_norm(change, dim=-1).mul_(row_factor).square_().double().sum().item()
        return norm_of(self._param, update.dtype).item() ** 2 if update.is_scaled else 0.0, total

    def write(self, scale: float) -> Iterator[Block]:
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
        self._update, self._scratch, self._dtype = update, scratch, update.dtype
        self._params, self._grads = self._blocks(update.param), self._blocks(update.grad)
        self._moments = self._blocks(update.state["exp_avg_sq"])
        momentum = update.state.get("exp_avg")
        self._momenta = None if momentum is None else self._blocks(momentum)

    def read(self) -> tuple[float, float]:
        params, updates, update, scratch = 0.0, 0.0, self._update, self._scratch
        for k, moment in enumerate(self._moments):
            grad, square = self._load(k)
            moment.lerp_(torch.mul(grad, grad, out=square).add_(update.eps[0]), update.weight)
            if update.is_scaled:
                value = scratch.load(self._params[k], self._dtype, "param")
                params += torch.mul(value, value, out=square).sum().item()
            updates += torch.rsqrt(moment, out=square).mul_(grad).square_().sum().item()
        return params, updates

    def write(self, scale: float) -> Iterator[Block]:
        for k in reversed(range(len(self._grads))):
            grad, change = self._load(k)
            torch.rsqrt(self._moments[k], out=change).mul_(grad).mul_(scale)
            yield self._params[k], None if self._momenta is None else self._momenta[k], change, None

    def _load(self, k: int) -> tuple[Tensor, Tensor]:
        """Return a block of the gradient and memory of its size."""
        grad = self._scratch.load(self._grads[k], self._dtype, "grad")
        return grad, self._scratch.like(grad, self._dtype, "square")

    @staticmethod
    def _blocks(tensor: Tensor) -> Sequence[Tensor]:
        vector = tensor.view(-1)
        return (vector,) if len(vector) <= _BLOCK else torch.split(vector, _BLOCK)


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
    scratch = _Scratch(updates)
    with np.errstate(all="ignore"):  # gradients of NaN or infinity are no news to whoever made them
        return [_apply(update, scratch) for update in updates]


def _apply(update: Update, scratch: _Scratch) -> float:
    layout, count = _choose_layout(update, scratch), update.param.numel()
    param_squares, update_squares = layout.read()
    rate = update.rho
    # These comparisons keep NaN, which max() would drop.
    if update.is_scaled:
        scale = math.sqrt(param_squares / count)
        rate *= update.eps[1] if scale < update.eps[1] else scale
    excess = math.sqrt(update_squares / count) / update.clip_threshold
    scale = rate if excess <= 1 else rate / excess
    generator, decay = rounding_generator(update), update.weight_decay * rate
    for param, momentum, change, factor in layout.write(scale):
        value = scratch.load(param, update.dtype, "param")
        _subtract(update, value, momentum, change, factor, decay)
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
