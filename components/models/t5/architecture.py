"""The shape of a T5 or mT5 model, and how it is written in the `config.json` that transformers reads."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

FEED_FORWARDS = ("gated-gelu", "relu")
MODEL_TYPES = ("t5", "mt5")

# Our field -> transformers' key, where they differ.
_RENAMED = {"dropout": "dropout_rate", "feed_forward": "feed_forward_proj", "tie_embeddings": "tie_word_embeddings"}
# What transformers' classes assume for a key that config.json leaves out.
_DEFAULTS = {"t5": {"feed_forward": "relu"}, "mt5": {"feed_forward": "gated-gelu"}}


@dataclass(frozen=True)
class T5Architecture:
    """Sizes and switches of one encoder-decoder.

    T5 v1.0 (arXiv:1910.10683) is relu, tied and scaled; T5 v1.1 and mT5 (arXiv:2010.11934) are gated-gelu, untied and
    unscaled. `scale_decoder_outputs` multiplies what enters the head by d_model^-0.5; left None it follows
    `tie_embeddings`. Raises ValueError for sizes that make no model.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout: float = 0.1
    feed_forward: str = "gated-gelu"
    tie_embeddings: bool = False
    scale_decoder_outputs: bool | None = None
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    layer_norm_epsilon: float = 1e-6
    model_type: str = "t5"

    def __post_init__(self) -> None:
        if self.scale_decoder_outputs is None:
            object.__setattr__(self, "scale_decoder_outputs", self.tie_embeddings and self.model_type != "mt5")
        for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: must be in [0, 1), not {self.dropout}")
        if self.feed_forward not in FEED_FORWARDS:
            raise ValueError(f"feed_forward: must be one of {', '.join(FEED_FORWARDS)}, not {self.feed_forward!r}")
        if self.model_type not in MODEL_TYPES:
            raise ValueError(f"model_type: must be one of {', '.join(MODEL_TYPES)}, not {self.model_type!r}")
        if self.model_type == "mt5" and self.scale_decoder_outputs:
            raise ValueError(
                "scale_decoder_outputs: mT5 never scales (transformers has no key for it); use model_type t5"
            )
        self._check_positions()

    def _check_positions(self) -> None:
        half = self.relative_attention_num_buckets // 2
        if half < 2 or self.relative_attention_max_distance <= half:
            raise ValueError(
                f"relative_attention_num_buckets: {self.relative_attention_num_buckets} buckets need at least 4, and a "
                f"relative_attention_max_distance over their half, not {self.relative_attention_max_distance}"
            )


def read_architecture(config: Mapping[str, Any], *, source: str) -> T5Architecture:
    """The architecture in a parsed `config.json`; `source` names the file in errors.

    `tie_embeddings` is what the file says, which transformers v5 writes as true even for untied models: whoever has the
    tensors decides by them. Raises ValueError for another model type or a missing key.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"{source}: model_type is {model_type!r}; a T5 checkpoint says {' or '.join(MODEL_TYPES)}")
    values: dict[str, Any] = dict(_DEFAULTS[model_type])
    for field in fields(T5Architecture):
        key = _RENAMED.get(field.name, field.name)
        if config.get(key) is not None:
            values[field.name] = config[key]
    values.setdefault("num_decoder_layers", values.get("num_layers"))
    # Only the flag says whether v1.0's scaling applies in files older than transformers 5
    values.setdefault("tie_embeddings", True)
    missing = [f.name for f in fields(T5Architecture) if f.name not in values or values[f.name] is None]
    required = [name for name in missing if T5Architecture.__dataclass_fields__[name].default is _REQUIRED]
    if required:
        raise ValueError(f"{source}: {', '.join(required)} missing; this is no complete T5 configuration")
    return T5Architecture(**values)


_REQUIRED = T5Architecture.__dataclass_fields__["vocab_size"].default


def architecture_config(architecture: T5Architecture) -> dict[str, Any]:
    """What `config.json` holds for this architecture, in transformers' words."""
    config = {_RENAMED.get(f.name, f.name): getattr(architecture, f.name) for f in fields(architecture)}
    name = "MT5ForConditionalGeneration" if architecture.model_type == "mt5" else "T5ForConditionalGeneration"
    return {"architectures": [name], "is_encoder_decoder": True, "use_cache": True, **config}
