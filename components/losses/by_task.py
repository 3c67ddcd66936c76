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


def contrastive(left: Tensor, right: Tensor, *, temperature: float) -> Tensor:
    """Symmetric InfoNCE in nats: each vector shall find its partner among all of the other side's (arXiv:1807.03748).

    Args:
        left, right: (B, D) unit vectors, row by row of one pair; the other rows of the batch are the wrong answers.
        temperature: what similarities are divided by; the lower, the more the nearest wrong answer alone counts.
    """
    assert left.shape == right.shape, f"{tuple(left.shape)} vectors for {tuple(right.shape)} partners"
    logits = _widened(left) @ _widened(right).T / temperature  # (B, B)
    partners = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2


def similarity_distillation(
    vectors: Tensor, teacher: Tensor, *, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy in nats between how a teacher and how a student spread each text's likeness over the other texts.

    Only similarities are compared, so that widths may differ and no projection is needed (after arXiv:2101.04731,
    equation 5, whose queue of other texts is the batch here). Its least value is the teacher's entropy, not 0.

    Args:
        vectors, teacher: (B, D) and (B, T), unit vectors of the same texts; a batch of one text teaches nothing.
        temperature, teacher_temperature: what each one's similarities are divided by.
    """
    assert len(vectors) == len(teacher), f"{len(vectors)} vectors but {len(teacher)} of the teacher"
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    wide, wanted = _widened(vectors), _widened(teacher)
    # Not minus infinity: 0 times it is not a number
    logits = (wide @ wide.T / temperature).masked_fill(own, -1e9)
    shares = (wanted @ wanted.T / teacher_temperature).masked_fill(own, -1e9).softmax(-1)
    return F.cross_entropy(logits, shares)


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
