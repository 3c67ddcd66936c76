"""A sentence encoder on torch, for any checkpoint folder; the one module of search that imports torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from components.search.onnx_export import fingerprint_checkpoint
from components.search.token_batches import TokenBatches


class TorchEncoder:
    """Mean pooling over real tokens, norm 1."""

    def __init__(self, folder: Path, *, name: str, max_length: int) -> None:
        self.name = name
        self.fingerprint = fingerprint_checkpoint(folder, max_length=max_length)
        self._batches = TokenBatches(folder, max_length=max_length)
        self._model = AutoModel.from_pretrained(folder).eval()
        self.dimension = int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D); all texts in one batch."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        input_ids, attention_mask = (torch.from_numpy(array) for array in self._batches(texts))
        with torch.inference_mode():
            hidden = self._model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, D)
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
            return np.asarray(torch.nn.functional.normalize(mean, dim=-1).numpy())
