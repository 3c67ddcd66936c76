"""Sentence embeddings: texts to vectors whose product is their likeness (arXiv:1908.10084)."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.tokenizer import TextTokenizer, load_tokenizer
from components.models.bert.checkpoint import TextEncoder, load_encoder
from components.models.bert.encoded import EncodedTokens
from components.models.bert.pooling import WITHOUT_WEIGHTS, build_pooling
from components.models.sentence.wide import WIDE_FILE, WideEncoder, load_wide_encoder
from components.models.shared.inference import predict_vectors
from components.models.shared.pretrained import resolve_checkpoint

# sentence-transformers' switches, and ours.
POOLING_SWITCHES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


class SentenceEncoder:
    """An encoder, its tokenizer and a pooling without weights (mean, cls, max), for inference only.

    A wide encoder pools by itself.
    """

    def __init__(
        self,
        encoder: TextEncoder | WideEncoder,
        tokenizer: TextTokenizer,
        *,
        pooling: str = "mean",
        max_length: int = 256,
        is_normalised: bool = True,
    ) -> None:
        if pooling not in WITHOUT_WEIGHTS:
            raise ValueError(f"pooling: {pooling!r} makes no sentence embedding; use {', '.join(WITHOUT_WEIGHTS)}")
        self.encoder, self.tokenizer = encoder.eval(), tokenizer
        self.pool = build_pooling(pooling, encoder.hidden_size)
        self.max_length, self.is_normalised = min(max_length, encoder.max_length), is_normalised

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return self.encoder.hidden_size

    def encode(self, texts: Sequence[str], *, batch_size: int = 32, precision: str = "no") -> Tensor:
        """Vectors (N, D) of the texts in their order, float32 on the CPU, of length 1 where `is_normalised`."""
        if not texts:
            return next(self.encoder.parameters()).new_zeros(0, self.size)
        ids = self.tokenizer.encode(texts, max_length=self.max_length).ids
        collate = TextCollator(self.tokenizer.pad_id)
        vectors = predict_vectors(
            self.encoder, self._pooled, EncodedTexts(ids), collate, batch_size=batch_size, precision=precision
        )
        return functional.normalize(vectors, dim=-1) if self.is_normalised else vectors

    def _pooled(self, encoded: EncodedTokens | Tensor) -> Tensor:
        if isinstance(encoded, Tensor):
            return encoded
        pooled: Tensor = self.pool(encoded)
        return pooled


def load_sentence_encoder(folder_or_name: str | Path, *, max_length: int | None = None) -> SentenceEncoder:
    """A sentence encoder from a folder, a Kaggle input or a hub name.

    Pooling, normalisation and length are those that sentence-transformers' files in the folder say; without them the
    mean, normalised, of up to 256 tokens. Raises ValueError for a pooling that is not supported.
    """
    folder = resolve_checkpoint(folder_or_name)
    length = _read(folder / "sentence_bert_config.json").get("max_seq_length") or 256
    return SentenceEncoder(
        load_wide_encoder(folder) if (folder / WIDE_FILE).is_file() else load_encoder(folder),
        load_tokenizer(folder),
        pooling=_read_pooling(folder),
        max_length=max_length or int(str(length)),
        is_normalised=_is_normalised(folder),
    )


def _read(path: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return read


def _read_pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    switched_on = [name for name, value in _read(path).items() if name.startswith("pooling_mode_") and value is True]
    if not switched_on:
        return "mean"
    if len(switched_on) > 1 or switched_on[0] not in POOLING_SWITCHES:
        raise ValueError(f"{path}: {', '.join(switched_on)} is not supported; there are {', '.join(POOLING_SWITCHES)}")
    return POOLING_SWITCHES[switched_on[0]]


def _is_normalised(folder: Path) -> bool:
    path = folder / "modules.json"
    if not path.is_file():
        return True
    return any(str(module["type"]).endswith("Normalize") for module in json.loads(path.read_text(encoding="utf-8")))
