"""The tensor operations of T5 that are worth writing by hand, so that a CPU core is kept at matrix products.

On one core, torch's dropout takes six times longer to draw its mask than the one here, and the tanh form of GELU four
times longer than the sigmoid that it equals. On an accelerator torch's own kernels are used.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

# Where the forms written here are used; elsewhere torch's own kernels are faster.
HAND_WRITTEN_ON = frozenset({"cpu"})
LANES = 4  # 16-bit random numbers in one 64-bit draw
# Below this share of real tokens the padding is taken out; above it, moving rows costs what it saves.
PACK_BELOW = 0.92


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


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        unit, inverse, weight = saved
        product = grad * unit
        mean = (product @ weight).div_(weight.numel()).unsqueeze(-1)
        grad_x = (grad * weight).addcmul_(unit, mean, value=-1.0).mul_(inverse)
        return grad_x, product.sum(0), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (arXiv:1910.07467) of x (N, D), without mean or bias, in the type of `weight`.

    The statistics are taken in float32, or in float64 for float64 input.
    """
    if is_hand_written(x) and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64):
        normed: Tensor = _RmsNorm.apply(x, weight, eps)
        return normed
    wide = x if x.dtype == torch.float64 else x.float()
    return functional.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(weight.dtype)


class _GatedGelu(Function):
    """gelu(x) = x (1 + tanh(u / 2)) / 2 = x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""

    LINEAR = 2.0 * (2.0 / torch.pi) ** 0.5
    CUBIC = LINEAR * 0.044715

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        slope = gate.square().mul_(_GatedGelu.CUBIC).add_(_GatedGelu.LINEAR)
        sigmoid = slope.mul_(gate).sigmoid_()
        ctx.save_for_backward(gate, value, sigmoid, *([] if mask is None else [mask]))
        out = (gate * sigmoid).mul_(value)
        return out if mask is None else out.mul_(mask)

    @staticmethod
    def backward(ctx: BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        gate, value, sigmoid = saved[:3]
        if len(saved) == 4:
            grad = grad * saved[3]
        gelu = gate * sigmoid
        grad_value = grad * gelu
        # d gelu / d gate = sigmoid + gelu (1 - sigmoid) u'(gate)
        slope = gate.square().mul_(3.0 * _GatedGelu.CUBIC).add_(_GatedGelu.LINEAR)
        slope.mul_(gelu.addcmul_(gelu, sigmoid, value=-1.0)).add_(sigmoid)
        return slope.mul_(value).mul_(grad), grad_value, None


def gated_gelu(gate: Tensor, value: Tensor, p: float) -> Tensor:
    """`dropout(gelu(gate) * value, p)` with the tanh form of GELU (arXiv:2002.05202), all of one shape."""
    if not is_hand_written(gate):
        return dropout(functional.gelu(gate, approximate="tanh") * value, p)
    gated: Tensor = _GatedGelu.apply(gate, value, dropout_mask(gate, p) if p > 0.0 else None)
    return gated


@dataclass(frozen=True)
class TokenRows:
    """Where the tokens of a padded batch stand when hidden states are kept as rows (N, D).

    Dense: every position is a row, N = batch * length, and both directions are views. Packed: only real tokens are
    rows, so that no matrix product is spent on padding; `kept` (N,) holds their flat positions, `source`
    (batch * length,) the row of each position.
    """

    batch: int
    length: int
    kept: Tensor | None = None
    source: Tensor | None = None

    @property
    def count(self) -> int:
        """N."""
        return self.batch * self.length if self.kept is None else len(self.kept)

    def pack(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (N, ...)."""
        rows = x.reshape(self.batch * self.length, *x.shape[2:])  # (B * L, ...)
        return rows if self.kept is None else rows.index_select(0, self.kept)

    def pad(self, x: Tensor) -> Tensor:
        """(N, ...) -> (B, L, ...); where no token stands is a copy of the first row, to be masked by who reads it."""
        if self.source is not None:
            x = x.index_select(0, self.source)  # a gather: zeros and a scatter cost three times as much
        return x.view(self.batch, self.length, *x.shape[1:])

    def pad_zeros(self, x: Tensor) -> Tensor:
        """(N, ...) -> (B, L, ...), zero where no token stands."""
        if self.kept is not None:
            x = x.new_zeros(self.batch * self.length, *x.shape[1:]).index_add(0, self.kept, x)
        return x.view(self.batch, self.length, *x.shape[1:])


def build_token_rows(real: Tensor) -> TokenRows:
    """The rows of a batch whose real tokens are marked in `real` (B, L), bool; dense where packing would not pay.

    On an accelerator always dense, as counting rows there would stall its queue; and dense where an example has no
    token at all, since attention over nothing but padding must not reach another example's row.
    """
    batch, length = real.shape
    if not is_hand_written(real) or int(real.sum()) > PACK_BELOW * batch * length or not bool(real.any(1).all()):
        return TokenRows(batch, length)
    flat = real.flatten()  # (B * L,)
    source = flat.cumsum(0).sub_(1).mul_(flat)
    return TokenRows(batch, length, flat.nonzero().squeeze(1), source)
