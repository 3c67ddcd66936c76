"""Several texts of one article as an example, and the collator that stacks them: what sentence encoders learn from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TokenIds = list[int]

SHORTEST, LONGEST = 8, 40
"""Tokens of a window that asks for another place of its article: a headline's usual lengths."""


class ArticlePairs:
    """A title and the beginning of its article, or two places of one article; one pair per row.

    In each epoch a share `window_share` of the rows, drawn as seed and epoch say, gives a window of a headline's length
    and another one beside or around which it stood, itself cut out (the inverse cloze task, arXiv:1906.00300). A body
    of fewer than `max_length` tokens is never cut up. Ids begin with the one that opens every text.
    """

    def __init__(
        self,
        titles: Sequence[TokenIds],
        bodies: Sequence[TokenIds],
        *,
        max_length: int,
        window_share: float,
        seed: int,
    ) -> None:
        if len(titles) != len(bodies):
            raise ValueError(f"{len(titles)} titles but {len(bodies)} bodies")
        self.titles, self.bodies = titles, bodies
        self.max_length, self.window_share, self.seed = max_length, window_share, seed
        self.begin_epoch(0)

    def __len__(self) -> int:
        return len(self.titles)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the numbers of every row."""
        self.draws = np.random.Generator(np.random.PCG64([self.seed, epoch])).random((len(self), 4))

    def __getitem__(self, row: int) -> dict[str, Any]:
        title, body = self.titles[row], self.bodies[row]
        if self.draws[row, 0] < self.window_share and len(body) > self.max_length:
            return {"texts": self._windows(body, self.draws[row])}
        return {"texts": [title[: self.max_length], body[: self.max_length]]}

    def padding_keys(self) -> list[int]:
        """The longer text of each pair decides."""
        return [min(len(body), self.max_length) for body in self.bodies]

    def _windows(self, body: TokenIds, draws: NDArray[np.float64]) -> list[TokenIds]:
        opening, text = body[:1], body[1:]
        size = SHORTEST + int(draws[1] * (min(LONGEST, len(text) // 2) - SHORTEST + 1))
        start = int(draws[2] * (len(text) - size + 1))
        rest, width = text[:start] + text[start + size :], self.max_length - 1
        # Anywhere such that it touches the place where the window stood
        other = max(0, min(start - int(draws[3] * width), len(rest) - width))
        return [opening + text[start : start + size], opening + rest[other : other + width]]


class TaughtTexts:
    """The same number of texts from every article, with a teacher's vector of each, (N, K, T)."""

    def __init__(self, texts: Sequence[Sequence[TokenIds]], vectors: NDArray[np.float16]) -> None:
        if len(texts) != len(vectors):
            raise ValueError(f"texts of {len(texts)} articles but vectors of {len(vectors)}")
        self.texts, self.vectors = texts, vectors

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"texts": self.texts[row], "vectors": self.vectors[row]}

    def padding_keys(self) -> list[int]:
        """The longest text of each article decides."""
        return [max(map(len, texts)) for texts in self.texts]


class TextGroupCollator:
    """Stacks the K texts of B examples, article by article, into `input_ids` and `attention_mask` (B K, L).

    `labels` are the teacher's vectors (B K, T) where the examples have them, else the number of each text's article
    within the batch (B K,).
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        texts = [text for example in examples for text in example["texts"]]
        lengths = torch.tensor([len(text) for text in texts])
        width = int(lengths.max())
        padded = torch.tensor([text + [self.pad_id] * (width - len(text)) for text in texts])
        mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
        return {"input_ids": padded, "attention_mask": mask, "labels": self._labels(examples)}

    def _labels(self, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        if "vectors" in examples[0]:
            return torch.from_numpy(np.concatenate([example["vectors"] for example in examples])).float()
        return torch.arange(len(examples)).repeat_interleave(len(examples[0]["texts"]))
