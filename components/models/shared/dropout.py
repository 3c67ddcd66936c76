"""Dropout that a CPU core draws six times faster than torch does; on an accelerator torch's own kernels are used."""

import torch
from torch import Tensor
from torch.nn import functional

# Where the forms written here, and those of t5_ops, are used; elsewhere torch's own kernels are faster.
HAND_WRITTEN_ON = frozenset({"cpu"})
LANES = 4  # 16-bit random numbers in one 64-bit draw


def is_hand_written(x: Tensor) -> bool:
    """Whether this tensor is served by the forms written here."""
    return x.device.type in HAND_WRITTEN_ON


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """A mask of `like`'s shape holding 0 with probability `p` (to within 2^-17) and 1 / (1 - p) elsewhere.

    Drawn from torch's CPU generator, four 16-bit numbers from each 64-bit draw.
    """
    count = like.numel()
    dropped = round(p * 2**16)
    draws = torch.empty((count + LANES - 1) // LANES, dtype=torch.int64).random_(-(2**63), None)
    lanes = draws.view(torch.int16)[:count].view(like.shape)
    # `out=` of the final type: a comparison into bool and a conversion cost five times as much
    mask = torch.ge(lanes, dropped - 2**15, out=torch.empty_like(like, requires_grad=False))
    return mask.mul_(2**16 / (2**16 - dropped))


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` of its elements zeroed and the rest scaled by 1 / (1 - p); `p` = 0 is the identity."""
    if p == 0.0:
        return x
    if not is_hand_written(x):
        return functional.dropout(x, p)
    return x * dropout_mask(x, p)


def add_dropout(residual: Tensor, x: Tensor, p: float) -> Tensor:
    """`residual + dropout(x, p)`, in one pass over memory on CPU."""
    if p == 0.0 or not is_hand_written(x) or x.dtype != residual.dtype:
        return residual + dropout(x, p)
    return torch.addcmul(residual, x, dropout_mask(x, p))
