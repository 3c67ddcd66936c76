"""Cross-entropy over a large vocabulary together with the linear head before it: logits never exist whole.

Of N tokens over V pieces a plain head keeps three matrices (N, V); mT5's 250,112 pieces make that 3 GiB for 1,024
tokens. Here a chunk of tokens goes through head, softmax and both gradients before the next one begins, all within
the forward pass, and what waits for the backward pass has the size of the hidden states and of the weight.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from components.losses.by_task import IGNORE_INDEX

# A chunk's logits stay in a processor's cache if they can, but its products need rows to be worth reading the weight
# for: 128 rows run within 5 % of the speed of all rows at once, 32 at half of it, whatever the vocabulary.
CHUNK_BYTES = 16 * 2**20
CHUNK_ROWS = 128
# In float32 on a processor smaller probabilities are taken for none: those of 250,112 pieces together are less than
# a hundredth of the last bit of 1. Their products, and squares of these in an optimizer, would be subnormal numbers,
# for which processors by Intel take a hundred times as long: 94 s for a forward pass of 4.
LEAST_PROBABILITY, FARTHEST_BELOW = 1e-15, 40.0  # nats below the highest logit, which is far less likely still
# Lifts probabilities out of float16's subnormal range, whose smallest number is 6e-8; undone in float32.
NARROW_SCALE = 2.0**10


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int = IGNORE_INDEX,
    max_chunk_bytes: int | None = None,
) -> Tensor:
    """Mean cross-entropy in nats of `hidden @ weight.T` over the labels that count; 0, without effect, if none does.

    Logits, softmax and sums are float32 at least, and so is the weight's gradient until it is complete. Autocast on an
    accelerator lowers the operands of the products alone. Gradients are computed here, if at all, and the backward
    pass only hands them on; a second one over a kept graph computes them anew, `create_graph` raises RuntimeError.
    Costs one wait for the device, to drop the tokens that do not count.

    Args:
        hidden: (N, D).
        weight: (V, D), of a head of its own or of the embedding.
        labels: (N,) int64 in [0, V), or `ignore_index`.
        label_smoothing: in [0, 1), the share of the target spread evenly over all V (Szegedy et al. 2016, section 7).
        z_loss: adds z_loss * mean(log Z ^ 2), which keeps the normaliser Z near 1 (PaLM, arXiv:2204.02311, section 5).
        max_chunk_bytes: bound of a chunk's logits, down to one row; by default 16 MiB, or 128 rows if that is more.
    """
    assert hidden.shape[1:] == weight.shape[1:], f"hidden {tuple(hidden.shape)} does not fit {tuple(weight.shape)}"
    assert labels.shape == hidden.shape[:1], f"labels {tuple(labels.shape)} do not fit hidden {tuple(hidden.shape)}"
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: must be in [0, 1), not {label_smoothing}")
    objective = _Objective(label_smoothing, z_loss, ignore_index, max_chunk_bytes, _operand_type(hidden, weight))
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, labels, objective)
        return loss
    return _evaluate(hidden, weight, labels, objective, (False, False)).loss


def tied_lookup(weight: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `ids` (N,) of an embedding `weight` (V, D) -> (N, D), and the weight itself for `linear_cross_entropy`.

    The gradient of the rows is added into that of the returned weight. Two separate uses of one weight would each make
    a gradient as large as the weight.
    """
    rows, head_weight = _TiedLookup.apply(weight, ids)
    return rows, head_weight


class _Objective(NamedTuple):
    label_smoothing: float
    z_loss: float
    ignore_index: int
    max_chunk_bytes: int | None
    operand_type: torch.dtype


class _Result(NamedTuple):
    loss: Tensor  # ()
    grad_hidden: Tensor | None  # (N, D)
    grad_weight: Tensor | None  # (V, D)


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, objective: _Objective) -> Tensor:  # noqa: ANN401
        loss, *gradients = _evaluate(hidden, weight, labels, objective, ctx.needs_input_grad[:2])
        ctx.save_for_backward(hidden, weight, labels)
        ctx.objective, ctx.gradients = objective, gradients
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        _refuse_graph()
        hidden, weight, labels = ctx.saved_tensors
        # Handed over, not shared: autograd may make the weight's gradient the parameter's without a copy
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, *gradients = _evaluate(hidden, weight, labels, ctx.objective, ctx.needs_input_grad[:2])
        grad_hidden, grad_weight = gradients
        return (
            _scaled_(grad_hidden, grad_loss, hidden.dtype),
            _scaled_(grad_weight, grad_loss, weight.dtype),
            None,
            None,
        )


class _TiedLookup(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return weight.index_select(0, ids), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor | None, grad_weight: Tensor | None) -> tuple[Tensor | None, None]:  # noqa: ANN401
        _refuse_graph()
        if grad_rows is None:
            return grad_weight, None
        if grad_weight is None:
            grad_weight = grad_rows.new_zeros(ctx.shape)
        # The head's gradient ends here, so its memory may be written to
        return grad_weight.index_add_(0, ctx.saved_tensors[0], grad_rows), None


def _refuse_graph() -> None:
    """In a backward pass gradients are recorded only if it is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise RuntimeError("linear_cross_entropy has no second derivative; leave create_graph out, or use a plain head")


def _operand_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The type in which the factors of a product are read; the product itself is float32 or float64."""
    kind, promoted = hidden.device.type, torch.promote_types(hidden.dtype, weight.dtype)
    if kind == "cuda":
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else promoted
    return _widened(promoted)


def _widened(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _evaluate(
    hidden: Tensor, weight: Tensor, labels: Tensor, objective: _Objective, needs_grad: tuple[bool, bool]
) -> _Result:
    """The loss, and those gradients that are needed, unscaled and wide."""
    no_autocast: AbstractContextManager[Any] = torch.autocast(hidden.device.type, enabled=False)
    with torch.no_grad(), no_autocast:
        kept = (labels != objective.ignore_index).nonzero().squeeze(1)  # (M,)
        packed, targets = hidden, labels
        if len(kept) < len(labels):
            packed, targets = hidden.index_select(0, kept), labels.index_select(0, kept)  # (M, D), (M,)
        result = _evaluate_packed(packed, weight, targets, objective, needs_grad)
        if result.grad_hidden is None or len(kept) == len(labels):
            return result
        grad_hidden = result.grad_hidden.new_zeros(hidden.shape).index_copy_(0, kept, result.grad_hidden)  # (N, D)
        return result._replace(grad_hidden=grad_hidden)


def _evaluate_packed(
    hidden: Tensor, weight: Tensor, labels: Tensor, objective: _Objective, needs_grad: tuple[bool, bool]
) -> _Result:
    """`_evaluate` where every label counts: a chunk of tokens after the other."""
    (count, _), wide = hidden.shape, _widened(torch.promote_types(hidden.dtype, weight.dtype))
    new = torch.empty if count else torch.zeros
    losses = hidden.new_zeros(count, dtype=wide)
    grad_hidden = new(hidden.shape, dtype=wide, device=hidden.device) if needs_grad[0] else None
    grad_weight = new(weight.shape, dtype=wide, device=hidden.device) if needs_grad[1] else None
    rows_per_chunk = _count_rows(count, len(weight) * losses.element_size(), objective.max_chunk_bytes)
    logits = losses.new_empty(rows_per_chunk, len(weight))
    for start in range(0, count, rows_per_chunk):
        rows = slice(start, min(start + rows_per_chunk, count))
        narrow = hidden[rows].to(objective.operand_type)  # (n, D)
        chunk = logits[: len(narrow)]  # (n, V)
        for pieces, block in _blocks(weight, objective.operand_type):
            _accumulate_(chunk[:, pieces], narrow, block.t(), is_first=True)
        losses[rows] = _to_gradient_(chunk, labels[rows], objective, needs_grad=any(needs_grad))
        if grad_hidden is not None:
            for pieces, block in _blocks(weight, objective.operand_type):
                factor, scale = _narrowed(chunk[:, pieces], objective.operand_type)
                is_first = pieces.start == 0
                _accumulate_(grad_hidden[rows], factor, block, scale=scale / count, is_first=is_first)
        if grad_weight is not None:
            for pieces in _split(weight, objective.operand_type):
                factor, scale = _narrowed(chunk[:, pieces].t(), objective.operand_type)
                _accumulate_(grad_weight[pieces], factor, narrow, scale=scale / count, is_first=start == 0)
    return _Result(losses.sum() / max(count, 1), grad_hidden, grad_weight)


def _to_gradient_(logits: Tensor, labels: Tensor, objective: _Objective, *, needs_grad: bool) -> Tensor:
    """The loss (n,) of each row of `logits` (n, V), which become the gradient of that loss."""
    smoothing, columns = objective.label_smoothing, labels.unsqueeze(1)  # (n, 1)
    highest = logits.amax(1, keepdim=True)  # (n, 1)
    below = highest - logits.gather(1, columns)
    if smoothing:
        below = torch.lerp(below, highest - logits.mean(1, keepdim=True), smoothing)
    has_floor = logits.is_cpu and logits.dtype == torch.float32
    if has_floor:
        torch.maximum(logits, highest - FARTHEST_BELOW, out=logits)
    # Not through log-softmax and exp: exp is twenty times slower where its result is subnormal
    torch.softmax(logits, 1, out=logits)
    if has_floor:
        functional.threshold(logits, LEAST_PROBABILITY, 0.0, inplace=True)
    # The likeliest piece has 1 / sum(exp(logit - highest)), at least 1 / V
    log_sum = -logits.amax(1, keepdim=True).log()
    log_normaliser = highest + log_sum
    loss = below + log_sum + objective.z_loss * log_normaliser.square()
    if needs_grad:
        if objective.z_loss:
            logits.mul_(1.0 + 2.0 * objective.z_loss * log_normaliser)
        if smoothing:
            logits.sub_(smoothing / logits.shape[1])
        logits.scatter_add_(1, columns, torch.full_like(below, smoothing - 1.0))
    return loss.squeeze(1)


def _count_rows(count: int, row_bytes: int, max_chunk_bytes: int | None) -> int:
    """Rows of a chunk, such that all chunks are about equally large."""
    limit = max(CHUNK_ROWS, CHUNK_BYTES // row_bytes)
    if max_chunk_bytes is not None:
        limit = max(1, max_chunk_bytes // row_bytes)
    num_chunks = -(-count // limit)
    return -(-count // num_chunks) if num_chunks else 1


def _split(weight: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """The weight's rows at once, or in portions if they must be copied into another type."""
    num_pieces, width = weight.shape
    portion = num_pieces if weight.dtype == dtype else max(1, CHUNK_BYTES // (width * dtype.itemsize))
    for start in range(0, num_pieces, portion):
        yield slice(start, min(start + portion, num_pieces))


def _blocks(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Each portion of `_split`, and the weight's rows there as `dtype`."""
    for pieces in _split(weight, dtype):
        yield pieces, weight[pieces].to(dtype)


def _narrowed(gradient: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """`gradient` as a factor of type `dtype`, and by what its products have to be multiplied."""
    if gradient.dtype == dtype:
        return gradient, 1.0
    return (gradient * NARROW_SCALE).to(dtype), 1.0 / NARROW_SCALE


def _accumulate_(out: Tensor, a: Tensor, b: Tensor, *, scale: float = 1.0, is_first: bool) -> None:
    """`out += scale * a @ b`, or `out = ...` at first; factors narrower than `out` are multiplied into its type."""
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=0.0 if is_first else 1.0, alpha=scale)
        return
    product = torch.mm(a, b, out_dtype=out.dtype)
    if is_first:
        torch.mul(product, scale, out=out)
    else:
        out.add_(product, alpha=scale)


def _scaled_(gradient: Tensor | None, grad_loss: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`gradient` times what follows the loss, written over itself."""
    # Usually 1; asking an accelerator would cost more than the pass over the weight's gradient that it saves
    if gradient is None or (grad_loss.device.type == "cpu" and grad_loss.item() == 1.0):
        return None if gradient is None else gradient.to(dtype)
    return gradient.mul_(grad_loss).to(dtype)
