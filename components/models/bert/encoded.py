"""What every text encoder returns: hidden states, and where in the batch they stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from components.models.shared.token_rows import TokenRows


@dataclass(frozen=True)
class EncodedTokens:
    """Hidden states (N, D) of the tokens of a batch, of which `real` (B, L) mark those that are no padding."""

    hidden: Tensor
    rows: TokenRows
    real: Tensor

    def padded(self) -> Tensor:
        """(B, L, D); what stands where no token is is finite and arbitrary."""
        return self.rows.pad(self.hidden)

    def first(self) -> Tensor:
        """The hidden state of each text's first token, (B, D)."""
        if self.rows.source is not None:
            return self.hidden.index_select(0, self.rows.source.view(self.rows.batch, -1)[:, 0])
        return self.padded()[:, 0]

    def weighted(self, weights: Tensor) -> Tensor:
        """The sum of hidden states under weights (B, L) that are 0 for padding -> (B, D)."""
        return torch.bmm(weights.unsqueeze(1), self.padded()).squeeze(1)
