"""Gradients clipped by their common norm, as torch does it, in one pass less where nothing is to be clipped."""

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 1e-6  # torch adds it to the norm, lest it divide by zero


def clip_plain_gradients(parameters: Sequence[Tensor], max_norm: float) -> bool:
    """Scale the gradients down to a common norm of `max_norm`, to the bit as `torch.nn.utils.clip_grad_norm_` does.

    Knows float32 gradients on a CPU, where looking at the norm costs nothing and most steps need no scaling; False,
    and nothing is done, if there are others.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients or any(type(g) is not Tensor or not g.is_cpu or g.dtype != torch.float32 for g in gradients):
        return False
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    factor = max_norm / (norm + _LEAST)
    if not bool(factor >= 1.0):  # and so with NaN, which is to spread
        torch._foreach_mul_(gradients, factor)
    return True
