"""The losses, one per task: each is the mean over the targets that count, computed in float32 at least.

Where one step sees several micro-batches or several processes, weigh each mean by its `count_targets` over the total
of these counts: the step's loss is then the mean over all its targets, however they were divided.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

IGNORE_INDEX = -100


def count_targets(labels: Tensor) -> Tensor:
    """How many targets count: class indices or token ids that are not -100, and every float (there -100 is a value).

    Returns:
        A scalar int64 tensor on the labels' device, so that no step has to wait for it.
    """
    if labels.is_floating_point():
        return torch.full((), labels.numel(), dtype=torch.int64, device=labels.device)
    return (labels != IGNORE_INDEX).sum()


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats over the targets that count; 0, with zero gradients, when none does.

    For a large vocabulary `chunked_cross_entropy` takes it from the hidden states, without the logits.

    Args:
        logits: (..., C), any floating type; half precision is widened first.
        labels: (...) int64 class indices, -100 where nothing is to be learnt.
        label_smoothing: share of the target spread evenly over all C classes (Szegedy et al. 2016, section 7).
    """
    assert logits.shape[:-1] == labels.shape, f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}"
    flat_logits = _widened(logits).reshape(-1, logits.shape[-1])  # (N, C)
    flat_labels = labels.reshape(-1)  # (N,)
    total = F.cross_entropy(
        flat_logits, flat_labels, reduction="sum", ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing
    )
    return total / count_targets(labels).clamp(min=1)


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of independent yes/no decisions, over all cells.

    Args:
        logits: (B, C) of the "yes" of each label.
        labels: (B, C) floats, 0, 1 or between.
        label_smoothing: e moves the targets to e/2 and 1 - e/2, which is what smoothing over two classes means.
    """
    assert logits.shape == labels.shape, f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}"
    widened = _widened(logits)
    targets = labels.to(widened.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(widened, targets)


def mean_squared_error(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean squared error, in the squared unit of the labels.

    Args:
        logits: predicted values, (B,) or (B, 1).
        labels: (B,) true values.
        label_smoothing: must be 0; it is here for the common signature.
    """
    if label_smoothing != 0.0:
        raise ValueError(f"label_smoothing: {label_smoothing}, but values have no classes to smooth over; set it to 0")
    # (B, 1) against (B,) would broadcast to (B, B) and train on nonsense.
    values = logits.squeeze(-1) if logits.dim() == labels.dim() + 1 else logits  # (B,)
    assert values.shape == labels.shape, f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}"
    widened = _widened(values)
    return F.mse_loss(widened, labels.to(widened.dtype))


LOSSES: dict[str, Callable[..., Tensor]] = {
    "binary": cross_entropy,
    "multiclass": cross_entropy,
    "multilabel": binary_cross_entropy,
    "regression": mean_squared_error,
    "text_to_text": cross_entropy,
}
"""The loss of each task, called as `loss(logits, labels, label_smoothing=...)`; binary is a choice of two classes."""


def _widened(logits: Tensor) -> Tensor:
    """Half precision as float32, because its sums lose digits and overflow; wider types as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
