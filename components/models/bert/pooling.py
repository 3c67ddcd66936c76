"""From the hidden states of a text to one vector."""

import torch
from torch import Tensor, nn

from components.models.bert.encoded import EncodedTokens


def pool_mean(tokens: EncodedTokens) -> Tensor:
    """The mean over a text's tokens, (B, D)."""
    real = tokens.real.to(tokens.hidden.dtype)
    return tokens.weighted(real / real.sum(1, keepdim=True).clamp(min=1))


def pool_max(tokens: EncodedTokens) -> Tensor:
    """The greatest value of each feature among a text's tokens, (B, D)."""
    return tokens.padded().masked_fill(~tokens.real.unsqueeze(-1), float("-inf")).amax(1)


def pool_cls(tokens: EncodedTokens) -> Tensor:
    """The first token, which BERT's pre-training made stand for the text, (B, D)."""
    return tokens.first()


class FixedPooling(nn.Module):
    """A pooling without weights, by its name in POOLINGS."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = {"mean": pool_mean, "max": pool_max, "cls": pool_cls}[name]

    def forward(self, tokens: EncodedTokens) -> Tensor:
        return self.function(tokens)


class AttentionPooling(nn.Module):
    """A mean under learned weights: softmax over the text's tokens of v^T tanh(W h) (arXiv:1703.03130, one hop)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.score = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, tokens: EncodedTokens) -> Tensor:
        scores = self.score(torch.tanh(self.hidden(tokens.hidden)))  # (N, 1)
        padded = tokens.rows.pad(scores).squeeze(-1).masked_fill(~tokens.real, float("-inf"))  # (B, L)
        return tokens.weighted(padded.softmax(-1).to(tokens.hidden.dtype))


class Pooler(nn.Module):
    """The first token through the published model's own tanh layer, as transformers' classifiers of BERT have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: EncodedTokens) -> Tensor:
        return torch.tanh(self.dense(tokens.first()))


POOLINGS = ("mean", "cls", "max", "attention", "pooler")
WITHOUT_WEIGHTS = ("mean", "cls", "max")


def build_pooling(name: str, width: int) -> nn.Module:
    """The pooling of a name in POOLINGS. Raises ValueError for another."""
    if name not in POOLINGS:
        raise ValueError(f"pooling: {name!r} is unknown; there are {', '.join(POOLINGS)}")
    if name in WITHOUT_WEIGHTS:
        return FixedPooling(name)
    return AttentionPooling(width) if name == "attention" else Pooler(width)
