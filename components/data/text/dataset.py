"""Encoded texts as a dataset, and the collator that pads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.losses.by_task import IGNORE_INDEX

TokenIds = list[int]

MULTIPLES_ABOVE = 64
"""Tokens; what is shorter is not rounded up."""


def padded_width(longest: int, multiple: int) -> int:
    """The width to which a batch is padded whose longest row has `longest` tokens."""
    return longest if longest <= MULTIPLES_ABOVE else longest + -longest % multiple


class EncodedTexts:
    """Sources and, when they are known, targets; one unpadded example per row.

    Targets are token ids (text to text), or an array of class indices (N,) or floats (N,), (N, K). `type_ids` say of
    pairs which segment each token of a source belongs to.
    """

    def __init__(
        self,
        sources: Sequence[TokenIds],
        targets: Sequence[Any] | None = None,
        *,
        type_ids: Sequence[TokenIds] | None = None,
    ) -> None:
        if targets is not None and len(targets) != len(sources):
            raise ValueError(f"{len(sources)} sources but {len(targets)} targets")
        self.sources = sources
        self.targets = targets
        self.type_ids = type_ids

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example: dict[str, Any] = {"input_ids": self.sources[row]}
        if self.type_ids is not None:
            example["token_type_ids"] = self.type_ids[row]
        if self.targets is not None:
            example["labels"] = self.targets[row]
        return example

    def padding_keys(self) -> list[int]:
        """Rows with equal keys pad to nothing: the source's length first, the target's among equal sources."""
        targets = self.targets if self.targets is not None and len(self.targets) else [0] * len(self)
        inner = [len(target) if isinstance(target, list) else 0 for target in targets]
        outer = max(inner, default=0) + 1
        return [len(source) * outer + length for source, length in zip(self.sources, inner, strict=True)]


class TextCollator:
    """Pads examples into `input_ids`, `attention_mask`, of pairs `token_type_ids` (B, L), and `labels`.

    Labels are (B, T) padded with -100 where they are token ids, else (B,) class indices or (B, ...) float targets.
    Widths above MULTIPLES_ABOVE are rounded up to `pad_to_multiple_of`; below, that alone would waste a quarter.
    """

    def __init__(self, pad_id: int, pad_to_multiple_of: int = 1) -> None:
        self.pad_id = pad_id
        self.multiple = pad_to_multiple_of

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        sources = [example["input_ids"] for example in examples]
        lengths = np.array([len(source) for source in sources])
        input_ids = self._pad(sources, self.pad_id)
        is_real = np.arange(input_ids.shape[1]) < lengths[:, None]
        batch = {"input_ids": input_ids, "attention_mask": torch.from_numpy(is_real.astype(np.int64))}
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = self._pad([example["token_type_ids"] for example in examples], 0)
        if "labels" in examples[0]:
            labels = [example["labels"] for example in examples]
            is_text = isinstance(labels[0], list)
            batch["labels"] = self._pad(labels, IGNORE_INDEX) if is_text else torch.as_tensor(np.array(labels))
        return batch

    def _pad(self, rows: Sequence[TokenIds], value: int) -> Tensor:
        width = padded_width(max(len(row) for row in rows), self.multiple)
        # By NumPy: torch reads nested lists at a quarter of its speed
        return torch.from_numpy(np.array([row + [value] * (width - len(row)) for row in rows], dtype=np.int64))
