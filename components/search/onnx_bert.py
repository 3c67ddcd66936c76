"""A BERT encoder with mean pooling written as an ONNX graph, node by node, from the tensors of a checkpoint.

Written out rather than traced: the graph depends on the weights alone, not on how a torch module happens to compute,
takes 0.3 s instead of 12, and any length or batch size runs. Names are those of transformers' checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 20, 9
ACTIVATIONS = {"gelu": {"approximate": "none"}, "gelu_new": {"approximate": "tanh"}}
# Added to the attention logits of padding: exp of it is 0 beside any real token, and no sum of two is -inf.
MASKED = -1e9

Tensors = Mapping[str, NDArray[np.float32]]


class _Graph:
    """Nodes and constants in the making; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - what ONNX's operators take
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("i_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"f_{value!r}", np.array(value, np.float32))


class _BertGraph(_Graph):
    """The layers of one checkpoint."""

    def __init__(self, config: Mapping[str, object], tensors: Tensors) -> None:
        super().__init__()
        self._tensors = {name.removeprefix("bert."): value for name, value in tensors.items()}
        self._epsilon = float(str(config.get("layer_norm_eps", 1e-12)))
        self._num_heads = int(str(config["num_attention_heads"]))
        self._activation = ACTIVATIONS[str(config.get("hidden_act", "gelu"))]
        self.num_layers = int(str(config["num_hidden_layers"]))
        self.width = int(str(config["hidden_size"]))

    def embed(self, input_ids: str) -> str:
        """(B, L, D): words + positions + the first token type, normalised."""
        words = self.node("Gather", self._weight("embeddings.word_embeddings.weight"), input_ids)
        # Every text is a first sentence, so its type's row is added to the positions once and for all.
        first_type = self._tensor("embeddings.token_type_embeddings.weight")[:1]
        positions = self.constant("positions", self._tensor("embeddings.position_embeddings.weight") + first_type)
        length = self.node("Shape", input_ids, start=1, end=2)
        cut = self.node("Slice", positions, self.integers(0), length, self.integers(0))
        return self._norm(self.node("Add", words, cut), "embeddings.LayerNorm")

    def mask(self, attention_mask: str) -> tuple[str, str]:
        """The mask as numbers (B, L, 1), and what is added to attention logits (B, 1, 1, L)."""
        real = self.node("Cast", attention_mask, to=TensorProto.FLOAT)
        padding = self.node("Mul", self.node("Sub", self.number(1.0), real), self.number(MASKED))
        return self.node("Unsqueeze", real, self.integers(2)), self.node("Unsqueeze", padding, self.integers(1, 2))

    def layer(self, hidden: str, bias: str, index: int) -> str:
        """One post-norm layer."""
        stem = f"encoder.layer.{index}."
        attended = self._linear(self._attend(hidden, bias, stem), stem + "attention.output.dense")
        hidden = self._norm(self.node("Add", hidden, attended), stem + "attention.output.LayerNorm")
        wide = self.node("Gelu", self._linear(hidden, stem + "intermediate.dense"), **self._activation)
        narrow = self._linear(wide, stem + "output.dense")
        return self._norm(self.node("Add", hidden, narrow), stem + "output.LayerNorm")

    def pool(self, hidden: str, real: str) -> str:
        """The mean over real tokens, (B, D)."""
        total = self.node("ReduceSum", self.node("Mul", hidden, real), self.integers(1), keepdims=0)
        count = self.node("Max", self.node("ReduceSum", real, self.integers(1), keepdims=0), self.number(1e-9))
        return self.node("Div", total, count)

    def normalise(self, vectors: str) -> str:
        """Of norm 1; (B, D)."""
        norm = self.node("Max", self.node("ReduceL2", vectors, self.integers(1), keepdims=1), self.number(1e-12))
        return self.node("Div", vectors, norm)

    def beginning(self, value: str) -> str:
        """(B, L) cut to the tokens that have positions."""
        num_positions = len(self._tensor("embeddings.position_embeddings.weight"))
        return self.node("Slice", value, self.integers(0), self.integers(num_positions), self.integers(1))

    def widen(self, pooled: str, wide: Tensors) -> str:
        """The bag of all words, of norm 1, and the layers' mean (B, H) through its matrix; (B, D)."""
        rows = self.node("Gather", self.constant("bag", wide["bag.weight"]), "input_ids")  # (B, L, D)
        real = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        total = self.node("MatMul", self.node("Unsqueeze", real, self.integers(1)), rows)  # (B, 1, D)
        bag = self.normalise(self.node("Squeeze", total, self.integers(1)))
        return self.node("Add", bag, self.node("MatMul", pooled, self.constant("lift_t", wide["lift.weight"].T)))

    def _attend(self, hidden: str, bias: str, stem: str) -> str:
        heads = [self._heads(hidden, f"{stem}attention.self.{part}", part) for part in ("query", "key", "value")]
        scale = self.number(float((self.width // self._num_heads) ** -0.5))
        logits = self.node("Add", self.node("Mul", self.node("MatMul", heads[0], heads[1]), scale), bias)
        mixed = self.node("MatMul", self.node("Softmax", logits, axis=-1), heads[2])  # (B, H, L, D / H)
        merged = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.node("Reshape", merged, self.integers(0, 0, self.width))

    def _heads(self, hidden: str, name: str, part: str) -> str:
        split = self.node("Reshape", self._linear(hidden, name), self.integers(0, 0, self._num_heads, -1))
        return self.node("Transpose", split, perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3])

    def _linear(self, value: str, name: str) -> str:
        weight = self.constant(f"{name}.weight_t", self._tensor(f"{name}.weight").T)
        return self.node("Add", self.node("MatMul", value, weight), self._weight(f"{name}.bias"))

    def _norm(self, value: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self.node("LayerNormalization", value, scale, bias, axis=-1, epsilon=self._epsilon)

    def _weight(self, name: str) -> str:
        return self.constant(name, self._tensor(name))

    def _tensor(self, name: str) -> NDArray[np.float32]:
        if name not in self._tensors:
            raise ValueError(f"the checkpoint has no tensor {name}; only BERT's own layout is exported")
        return np.asarray(self._tensors[name], np.float32)


def write_bert(config: Mapping[str, object], tensors: Tensors, file: Path, *, wide: Tensors | None = None) -> None:
    """Write the encoder as `file`: `input_ids` and `attention_mask` (B, L), int64, to `vectors` (B, D).

    `config` is a checkpoint's parsed config.json, `wide` what stands beside it in a wide encoder's folder.
    Raises ValueError for a model that is no BERT.
    """
    if config.get("model_type", "bert") != "bert" or str(config.get("hidden_act", "gelu")) not in ACTIVATIONS:
        described = f"{config.get('model_type')} with {config.get('hidden_act')}"
        raise ValueError(f"{described} is not exported; only bert with {' or '.join(ACTIVATIONS)} is")
    graph = _BertGraph(config, tensors)
    ids, attended = "input_ids", "attention_mask"
    if wide is not None:
        ids, attended = graph.beginning(ids), graph.beginning(attended)
    real, bias = graph.mask(attended)
    hidden = graph.embed(ids)
    for index in range(graph.num_layers):
        hidden = graph.layer(hidden, bias, index)
    pooled, width = graph.pool(hidden, real), graph.width
    if wide is not None:
        pooled, width = graph.widen(pooled, wide), wide["bag.weight"].shape[1]
    graph.nodes.append(helper.make_node("Identity", [graph.normalise(pooled)], ["vectors"]))
    inputs = [_value(name, TensorProto.INT64, "length") for name in ("input_ids", "attention_mask")]
    outputs = [_value("vectors", TensorProto.FLOAT, width)]
    body = helper.make_graph(graph.nodes, "bert", inputs, outputs, list(graph.constants.values()))
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _value(name: str, kind: int, width: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", width])
