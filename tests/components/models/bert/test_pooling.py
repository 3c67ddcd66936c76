"""Poolings of packed and of dense batches against plain loops over the texts."""

import pytest
import torch

from components.models.bert.encoded import EncodedTokens
from components.models.bert.pooling import POOLINGS, build_pooling
from components.models.shared.token_rows import TokenRows, build_token_rows


def build_tokens(*, is_packed):
    torch.manual_seed(0)
    real = torch.arange(6) < torch.tensor([6, 2, 1])[:, None]
    padded = torch.randn(3, 6, 4, dtype=torch.float64)
    rows = build_token_rows(real) if is_packed else TokenRows(3, 6)
    assert (rows.kept is not None) == is_packed
    return padded, real, EncodedTokens(rows.pack(padded), rows, real)


PLAIN = {
    "mean": lambda text, pooling: text.mean(0),
    "max": lambda text, pooling: text.amax(0),
    "cls": lambda text, pooling: text[0],
    "pooler": lambda text, pooling: pooling.dense(text[0]).tanh(),
    "attention": lambda text, pooling: (pooling.score(pooling.hidden(text).tanh()).softmax(0) * text).sum(0),
}


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("name", POOLINGS)
def test_a_text_is_pooled_over_its_own_tokens(name, is_packed):
    padded, real, tokens = build_tokens(is_packed=is_packed)
    pooling = build_pooling(name, 4).double()
    expected = torch.stack([PLAIN[name](text[mask], pooling) for text, mask in zip(padded, real, strict=True)])
    torch.testing.assert_close(pooling(tokens), expected)


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="pooling: 'sum' is unknown; there are mean, cls, max, attention, pooler"):
        build_pooling("sum", 4)
