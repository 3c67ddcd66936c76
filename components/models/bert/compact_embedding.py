"""An embedding of which only the rows that training texts use are trained.

The other rows' gradients are zero in every step, so that AdamW without weight decay leaves them where they are; yet a
dense optimizer reads and writes them all. A published vocabulary has 30,000 rows or more, a small corpus uses a tenth.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class CompactEmbedding(nn.Embedding):
    """Rows `used_ids` of `weight` (V, D) as the parameter (K, D); ids that are not among them keep their old vector.

    The steps of AdamW, and of any optimizer that treats each number by itself, are those of the whole matrix; weight
    decay alone would have shrunk the unused rows.
    """

    published: Tensor
    places: Tensor

    def __init__(self, weight: Tensor, used_ids: Iterable[int]) -> None:
        used = torch.tensor(sorted(set(used_ids)), dtype=torch.int64, device=weight.device)
        super().__init__(len(used), weight.shape[1], _weight=weight.detach()[used].clone())
        places = torch.full((len(weight),), -1, device=weight.device).index_copy(0, used, torch.arange(len(used)))
        # What the published weights say again is not part of a resume point
        self.register_buffer("published", weight.detach(), persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Ids (...) -> vectors (..., D)."""
        places = self.places[input]
        if self.training:
            return functional.embedding(places, self.weight)
        trained = functional.embedding(places.clamp(min=0), self.weight)
        return torch.where(places.unsqueeze(-1) < 0, functional.embedding(input, self.published), trained)

    def whole_weight(self) -> Tensor:
        """The matrix (V, D) with the trained rows in their places."""
        whole = self.published.clone()
        whole[self.places >= 0] = self.weight.detach()
        return whole
