"""Hidden states as rows of real tokens, so that no matrix product is spent on padding."""

from dataclasses import dataclass

from torch import Tensor

from components.models.shared.dropout import is_hand_written

# Below this share of real tokens the padding is taken out; above it, moving rows costs what it saves.
PACK_BELOW = 0.92


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
