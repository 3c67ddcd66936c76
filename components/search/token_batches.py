"""Texts to padded arrays of token ids, by the `tokenizers` library alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


class TokenBatches:
    """Encodes batches with the tokenizer of a checkpoint folder, each text cut to `max_length` tokens."""

    def __init__(self, folder: Path, *, max_length: int) -> None:
        """Raises ValueError without a readable `tokenizer.json`."""
        file = folder / TOKENIZER_FILE
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{file}: unreadable as a tokenizer ({error})") from error
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`input_ids` and `attention_mask`, (B, L) each, padded with 0 to the longest text."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        input_ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        return input_ids, attention_mask
