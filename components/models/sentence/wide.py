"""A narrow BERT beside a wide bag of words: vectors wider than the layers, for the price of a lookup.

How many words a vector tells apart grows with its width, and the time of a layer with the square of it. So the words
have a second, wide table, whose rows are summed over a whole text (fastText's bag, arXiv:1607.01759), and the mean of
what the layers made of the text's beginning is added through one matrix. A row's length is how much its word counts.

A folder is the narrow encoder's, which transformers reads as any BERT, and WIDE_FILE beside it.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from components.models.bert.checkpoint import load_encoder, save_bert
from components.models.bert.model import BertEncoder
from components.models.bert.pooling import pool_mean

WIDE_FILE = "wide.safetensors"
# Of the layers' part beside the bag's, which has length 1
INITIAL_SHARE = 0.3


class WideEncoder(nn.Module):
    """Ids to one vector a text; the layers read as many tokens as `trunk` has positions, the bag reads all."""

    def __init__(self, trunk: BertEncoder, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        architecture = trunk.architecture
        self.bag = nn.Embedding(architecture.vocab_size, width)
        self.lift = nn.Linear(architecture.hidden_size, width, bias=False)

    @property
    def hidden_size(self) -> int:
        """D, the numbers of a vector."""
        return self.bag.embedding_dim

    @property
    def max_length(self) -> int:
        """Tokens of the longest text: no bound, for the bag has no positions."""
        return sys.maxsize

    @property
    def layer_stacks(self) -> list[nn.ModuleList]:
        """The narrow encoder's."""
        return self.trunk.layer_stacks

    @property
    def embedding_layers(self) -> list[nn.Module]:
        """The narrow encoder's; the bag is a single sum."""
        return self.trunk.embedding_layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask (B, L), padded on the right -> vectors (B, D), of any length."""
        real = attention_mask.bool()
        lengths = real.sum(1)  # (B,)
        starts = lengths.cumsum(0) - lengths
        bag = functional.embedding_bag(input_ids[real], self.bag.weight, starts, mode="sum")  # (B, D)
        read = self.trunk.max_length
        pooled = pool_mean(self.trunk(input_ids[:, :read], attention_mask[:, :read]))
        lifted: Tensor = self.lift(pooled)
        return functional.normalize(bag, dim=-1) + lifted

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every weight anew: words of length 1, and layers that add INITIAL_SHARE to them."""
        self.trunk.initialise()
        self.bag.weight.normal_(0.0, self.hidden_size**-0.5)
        # The layers' last norm gives their mean a length of up to sqrt(H)
        self.lift.weight.normal_(0.0, INITIAL_SHARE * (self.trunk.hidden_size * self.hidden_size) ** -0.5)


TextVectors = BertEncoder | WideEncoder
"""What vectors of texts come from: the mean over a BERT's tokens, or a wide encoder's own."""


def pool_texts(encoder: TextVectors, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Vectors (B, D) of ids and mask (B, L), of any length."""
    encoded = encoder(input_ids, attention_mask)
    return encoded if isinstance(encoded, Tensor) else pool_mean(encoded)


def save_vectors_encoder(encoder: TextVectors, folder: Path) -> None:
    """Write the BERT's folder, and of a wide encoder WIDE_FILE as well."""
    if isinstance(encoder, BertEncoder):
        save_bert(encoder, folder)
        return
    save_bert(encoder.trunk, folder)
    wide = {"bag.weight": encoder.bag.weight, "lift.weight": encoder.lift.weight}
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in wide.items()}
    save_file(ready, folder / WIDE_FILE, metadata={"format": "pt"})


def load_wide_encoder(
    folder: Path, *, dropout: float | None = None, attention_dropout: float | None = None
) -> WideEncoder:
    """The wide encoder of a folder with WIDE_FILE. Raises ValueError where the two do not belong together."""
    trunk = load_encoder(folder, dropout=dropout, attention_dropout=attention_dropout)
    file = folder / WIDE_FILE
    wide = load_file(file)
    if not isinstance(trunk, BertEncoder) or {*wide} != {"bag.weight", "lift.weight"}:
        raise ValueError(
            f"{file}: holds {', '.join(sorted(wide))}; a wide encoder is bag.weight and lift.weight on a BERT"
        )
    encoder = WideEncoder(trunk, wide["bag.weight"].shape[1])
    for name, parameter in (("bag.weight", encoder.bag.weight), ("lift.weight", encoder.lift.weight)):
        if wide[name].shape != parameter.shape:
            raise ValueError(
                f"{file}: {name} is {list(wide[name].shape)}, but config.json asks for {list(parameter.shape)}"
            )
        parameter.data.copy_(wide[name])
    return encoder


def load_vectors_encoder(
    folder: Path, *, dropout: float | None = None, attention_dropout: float | None = None
) -> TextVectors:
    """What `save_vectors_encoder` wrote."""
    if (folder / WIDE_FILE).is_file():
        return load_wide_encoder(folder, dropout=dropout, attention_dropout=attention_dropout)
    encoder = load_encoder(folder, dropout=dropout, attention_dropout=attention_dropout)
    assert isinstance(encoder, BertEncoder)
    return encoder
