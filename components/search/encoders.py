"""The protocol of whatever turns texts into vectors, and the encoding of a corpus in batches of like lengths."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 32
# The files of an exported encoder, beside its tokenizer.
MODEL_FILE, RECORD_FILE = "model.onnx", "encoder.json"


class SentenceEncoder(Protocol):
    """Texts to unit vectors; safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def dimension(self) -> int:
        """D, the numbers per vector."""

    @property
    def fingerprint(self) -> str:
        """Equal for encoders that give the same vectors: of weights, tokenizer and length, not of the runtime."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) of norm 1, in the order of the texts."""


def encode_in_batches(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    *,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """(N, D) in the order of the texts, encoded by length, the longest first, so that batches hardly pad.

    `on_progress` is told how many texts are done after each batch.
    """
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        vectors[rows] = encoder.encode([texts[row] for row in rows])
        if on_progress is not None:
            on_progress(start + len(rows))
    return vectors


def fingerprint_files(files: Sequence[Path], **settings: object) -> str:
    """sha256 over the bytes of files and over settings that change vectors, in hexadecimal."""
    digest = sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    digest.update(repr(sorted(settings.items())).encode())
    return digest.hexdigest()
