"""The sizes of a BERT-like encoder, and how the configurations of its families in transformers say them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}


@dataclass(frozen=True)
class BertArchitecture:
    """An encoder of post-norm layers with learned positions (arXiv:1810.04805); defaults are BERT-base's."""

    model_type: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    embedding_size: int = 768
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pad_id: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size: {self.hidden_size} is not divisible by num_heads: {self.num_heads}")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation: {self.activation!r} is unknown; there are {known}")
        if self.model_type not in FAMILIES:
            raise ValueError(f"model_type: {self.model_type!r} is none of {', '.join(FAMILIES)}")

    @property
    def family(self) -> "Family":
        return FAMILIES[self.model_type]


@dataclass(frozen=True)
class Family:
    """What differs between encoders that compute the same thing: names, mostly.

    `keys` holds a configuration's key for each field of the architecture, `names` transformers' name for each of our
    modules. Positions of `offset` families are counted over real tokens, from the padding id on.
    """

    prefix: str
    class_name: str
    keys: Mapping[str, str]
    names: Mapping[str, str]
    layers: str = "encoder.layer"
    offset: bool = False


_BERT_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "activation": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
}
_DISTIL_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "max_positions": "max_position_embeddings",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
}
# Within a layer; "{part}" stands for query, key and value, which are one matrix here
_BERT_NAMES = {
    "attention.qkv": "attention.self.{part}",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTIL_NAMES = {
    "attention.qkv": "attention.{part}_lin",
    "attention.out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "wide": "ffn.lin1",
    "narrow": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
PARTS = {"bert": ("query", "key", "value"), "distilbert": ("q", "k", "v")}

FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "Bert", _BERT_KEYS, _BERT_NAMES),
    "roberta": Family("roberta", "Roberta", _BERT_KEYS, _BERT_NAMES, offset=True),
    "xlm-roberta": Family("roberta", "XLMRoberta", _BERT_KEYS, _BERT_NAMES, offset=True),
    "camembert": Family("roberta", "Camembert", _BERT_KEYS, _BERT_NAMES, offset=True),
    "electra": Family("electra", "Electra", _BERT_KEYS | {"embedding_size": "embedding_size"}, _BERT_NAMES),
    "distilbert": Family("distilbert", "DistilBert", _DISTIL_KEYS, _DISTIL_NAMES, layers="transformer.layer"),
}
"""The families that run on the code here; every other encoder of transformers runs on its own."""


def read_architecture(config: Mapping[str, Any], *, source: str) -> BertArchitecture:
    """The architecture of a parsed `config.json`. Raises ValueError, naming `source`, for what it cannot be."""
    model_type = str(config.get("model_type"))
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise ValueError(f"{source}: relative positions or a decoder; only encoders with absolute positions are read")
    values: dict[str, Any] = {"model_type": model_type}
    for name, key in FAMILIES[model_type].keys.items():
        if config.get(key) is not None:
            values[name] = config[key]
        elif name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "vocab_size"):
            raise ValueError(f"{source}: no {key}; the file is no configuration of {model_type}")
    values.setdefault("embedding_size", values["hidden_size"])
    if model_type == "distilbert":
        values["type_vocab_size"] = 0
    try:
        return BertArchitecture(**values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def architecture_config(architecture: BertArchitecture) -> dict[str, Any]:
    """What transformers needs in `config.json` to build the same model."""
    family = architecture.family
    config = {key: getattr(architecture, name) for name, key in family.keys.items()}
    if architecture.model_type == "electra":
        # Of its generators only
        config |= {"summary_use_proj": False}
    return {"model_type": architecture.model_type, "architectures": [f"{family.class_name}Model"], **config}


assert {field.name for field in fields(BertArchitecture)} >= {name for f in FAMILIES.values() for name in f.keys}
