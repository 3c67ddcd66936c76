"""A checkpoint's sentence encoder on torch, in search's protocol; the one module of search that imports torch."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from components.models.sentence.encoder import load_sentence_encoder
from components.search.onnx_export import fingerprint_checkpoint


class TorchEncoder:
    """What `OnnxEncoder` is the export of."""

    def __init__(self, folder: Path, *, name: str, max_length: int) -> None:
        """Raises ValueError for a folder that holds no encoder."""
        self.name = name
        self.fingerprint = fingerprint_checkpoint(folder, max_length=max_length)
        self._encoder = load_sentence_encoder(folder, max_length=max_length)
        self.dimension = self._encoder.size
        # Its tokenizer sets where texts are cut at every call, which two threads may not do at once.
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) of norm 1; all texts in one batch."""
        with self._lock:
            return np.asarray(self._encoder.encode(texts, batch_size=max(1, len(texts))).numpy(), np.float32)
