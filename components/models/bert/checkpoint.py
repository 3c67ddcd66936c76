"""BERT-like encoders (arXiv:1810.04805): building them, and checkpoints that transformers reads and writes.

BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA and DistilBERT run on our own code, whose reference in the tests is
transformers'; every other encoder of transformers runs on its own (`HubEncoder`). Folders hold `config.json` and
`model.safetensors` under transformers' names: AutoModel reads what stands here as it does its own. A classifier whose
pooling is `pooler` is one of transformers' BertForSequenceClassification too.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.models.bert.architecture import FAMILIES, BertArchitecture, architecture_config, read_architecture
from components.models.bert.encoded import EncodedTokens
from components.models.bert.hub import HubEncoder
from components.models.bert.model import BertEncoder, TextClassifier, TextHead
from components.models.bert.pooling import POOLINGS
from components.models.bert.weights import join_problems, list_problems, to_own_names, to_their_names
from components.models.shared.pretrained import read_config, read_tensors, resolve_checkpoint

__all__ = [
    "POOLINGS",
    "BertArchitecture",
    "BertEncoder",
    "EncodedTokens",
    "HubEncoder",
    "TextClassifier",
    "TextEncoder",
    "create_bert",
    "load_bert",
    "load_encoder",
    "save_bert",
]

TextEncoder = BertEncoder | HubEncoder
# Of a classifier's file, beside the encoder: ours, and transformers' head of the same form.
HEAD_NAMES = {"pooling.": "pooling.", "pooler.": "pooling.", "classifier.": "classifier."}


def create_bert(
    architecture: BertArchitecture,
    *,
    num_outputs: int,
    pooling: str = "mean",
    loss: str = "cross_entropy",
    num_dropout_samples: int = 1,
    label_smoothing: float = 0.0,
) -> TextClassifier:
    """A classifier with freshly drawn weights (torch's global generator)."""
    encoder = BertEncoder(architecture)
    encoder.initialise()
    head = _fresh_head(encoder, num_outputs, pooling, architecture.dropout, num_dropout_samples)
    return TextClassifier(encoder, head, loss=loss, label_smoothing=label_smoothing)


def load_encoder(
    folder_or_name: str | Path,
    *,
    dropout: float | None = None,
    attention_dropout: float | None = None,
    reinitialise_layers: int = 0,
    local_files_only: bool = False,
) -> TextEncoder:
    """An encoder in float32 from a folder, a Kaggle input or a hub name (`pretrained.resolve_checkpoint`).

    Whatever stands on it in the file (a pre-training head, a classifier, a pooler) is left out. `dropout` and
    `attention_dropout` replace the checkpoint's own; the weights of the last `reinitialise_layers` are drawn anew.
    Raises ValueError that names the file and the tensors that are missing or of another shape.
    """
    folder = resolve_checkpoint(folder_or_name, local_files_only=local_files_only)
    encoder, _ = _load_encoder(folder, dropout, attention_dropout)
    encoder.reinitialise_top(reinitialise_layers)
    return encoder


def load_bert(
    folder_or_name: str | Path,
    *,
    num_outputs: int | None = None,
    pooling: str | None = None,
    loss: str | None = None,
    dropout: float | None = None,
    attention_dropout: float | None = None,
    head_dropout: float = 0.1,
    num_dropout_samples: int = 1,
    reinitialise_layers: int = 0,
    label_smoothing: float = 0.0,
    replace_head: bool = False,
    local_files_only: bool = False,
) -> TextClassifier:
    """A classifier in float32 from any encoder's folder, Kaggle input or hub name.

    The head of a classifier's checkpoint is kept (`num_outputs`, `pooling` and `loss` may then be left out); any other
    checkpoint gets a fresh one. `pooling` is one of POOLINGS, mean if nothing else is said. With `replace_head` a head
    of another form is replaced by a fresh one, too. Raises ValueError for one otherwise, and as `load_encoder` does.
    """
    folder = resolve_checkpoint(folder_or_name, local_files_only=local_files_only)
    encoder, left = _load_encoder(folder, dropout, attention_dropout)
    saved = _saved_head(read_config(folder), left)
    for name, wanted in (("num_outputs", num_outputs), ("pooling", pooling)):
        if saved and wanted not in (None, saved[name]):
            if not replace_head:
                raise ValueError(f"{name}: {wanted}, but {folder} holds a head of {name} {saved[name]}")
            saved = {}
    outputs, pooled = saved.get("num_outputs", num_outputs), saved.get("pooling", pooling or "mean")
    if outputs is None:
        raise ValueError(f"num_outputs: {folder} holds no head; say how many outputs a fresh one has")
    head = _fresh_head(encoder, outputs, pooled, head_dropout, num_dropout_samples)
    _fill_head(head, left, folder, is_saved=bool(saved))
    encoder.reinitialise_top(reinitialise_layers)
    chosen = loss or saved.get("loss", "cross_entropy")
    return TextClassifier(encoder, head, loss=chosen, label_smoothing=label_smoothing)


def save_bert(model: TextClassifier | TextEncoder, folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` into `folder` (made if needed) and return it.

    transformers' AutoModel loads the encoder to equal hidden states. A classifier's folder says what its head is under
    the key "classifier".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = model.encoder if isinstance(model, TextClassifier) else model
    assert isinstance(encoder, BertEncoder | HubEncoder)
    tensors, config, prefix = _written_encoder(encoder)
    if isinstance(model, TextClassifier):
        head = model.head
        tensors = {prefix + name: tensor for name, tensor in tensors.items()}
        tensors |= {_head_name(head, name, prefix): tensor for name, tensor in head.state_dict().items()}
        config |= _head_config(model, config)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(ready, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _load_encoder(
    folder: Path, dropout: float | None, attention_dropout: float | None
) -> tuple[TextEncoder, dict[str, Tensor]]:
    """The encoder of a folder, and the tensors of its file that are not the encoder's."""
    config = read_config(folder)
    if config.get("model_type") not in FAMILIES:
        return _load_foreign(folder, config, dropout, attention_dropout)
    architecture = read_architecture(config, source=str(folder / "config.json"))
    architecture = replace(
        architecture,
        dropout=architecture.dropout if dropout is None else dropout,
        attention_dropout=architecture.attention_dropout if attention_dropout is None else attention_dropout,
    )
    file, tensors = read_tensors(folder)
    wide = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
    try:
        own = to_own_names(wide, architecture)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    with torch.device("meta"):
        encoder = BertEncoder(architecture)
    _fill(encoder, {name: own.pop(name) for name in encoder.state_dict() if name in own}, file)
    return encoder, own


def _load_foreign(
    folder: Path, config: Mapping[str, Any], dropout: float | None, attention_dropout: float | None
) -> tuple[TextEncoder, dict[str, Tensor]]:
    """A model that runs on transformers' code; of other checkpoints than ours nothing is left over."""
    is_own = "classifier" in config
    encoder = HubEncoder(folder, has_weights=not is_own, dropout=dropout, attention_dropout=attention_dropout)
    if not is_own:
        return encoder, {}
    file, tensors = read_tensors(folder)
    prefix = "encoder."
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    _fill(encoder.model, inner, file)
    return encoder, {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Give a module exactly these tensors as its parameters."""
    if problems := list_problems(tensors, module.state_dict()):
        raise ValueError(
            f"{file}: does not fit its config.json: {join_problems(problems)}; "
            "the two files belong to different models, or one is damaged"
        )
    module.load_state_dict(dict(tensors), assign=True)
    # Buffers that no file holds were made on the meta device with the rest
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


def _fresh_head(
    encoder: TextEncoder, num_outputs: int, pooling: str, dropout: float, num_dropout_samples: int
) -> TextHead:
    head = TextHead(
        encoder.hidden_size, num_outputs, pooling=pooling, dropout=dropout, num_dropout_samples=num_dropout_samples
    )
    head.initialise()
    return head


def _saved_head(config: Mapping[str, Any], left: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the head of a file is: ours, transformers' of the same form, or nothing."""
    if "classifier" in config:
        return dict(config["classifier"])
    is_theirs = config.get("architectures") == ["BertForSequenceClassification"]
    if not is_theirs or "classifier.weight" not in left:
        return {}
    return {"num_outputs": len(left["classifier.weight"]), "pooling": "pooler"}


def _fill_head(head: TextHead, left: Mapping[str, Tensor], folder: Path, *, is_saved: bool) -> None:
    """The head's tensors from a file: all of a saved one, else only the published pooler where that is the pooling."""
    found = {
        name.replace(theirs, ours, 1): tensor
        for theirs, ours in HEAD_NAMES.items()
        for name, tensor in left.items()
        if name.startswith(theirs)
    }
    if not is_saved:
        if head.pooling_name != "pooler":
            return
        if "pooling.dense.weight" not in found:
            raise ValueError(f"pooling: pooler, but {folder} holds none; use {', '.join(POOLINGS[:-1])}")
        found = {name: tensor for name, tensor in found.items() if name.startswith("pooling.")} | {
            name: tensor for name, tensor in head.state_dict().items() if name.startswith("classifier.")
        }
    _fill(head, {name: found[name] for name in head.state_dict() if name in found}, folder)


def _written_encoder(encoder: TextEncoder) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """An encoder's tensors and configuration as transformers has them, and the prefix within a classifier."""
    if isinstance(encoder, HubEncoder):
        return encoder.whole_state(), encoder.config(), "encoder."
    architecture = encoder.architecture
    tensors = to_their_names(encoder.whole_state(), architecture)
    return tensors, architecture_config(architecture), architecture.family.prefix + "."


def _head_name(head: TextHead, name: str, prefix: str) -> str:
    return name.replace("pooling.", f"{prefix}pooler.", 1) if head.pooling_name == "pooler" else name


def _head_config(model: TextClassifier, config: Mapping[str, Any]) -> dict[str, Any]:
    head, count = model.head, model.head.classifier.out_features
    said: dict[str, Any] = {"classifier": {"num_outputs": count, "pooling": head.pooling_name, "loss": model.loss}}
    if head.pooling_name == "pooler" and config["model_type"] == "bert":
        problems = {"mse": "regression", "binary_cross_entropy": "multi_label_classification"}
        said |= {
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(index): f"LABEL_{index}" for index in range(count)},
            "label2id": {f"LABEL_{index}": index for index in range(count)},
            "problem_type": problems.get(model.loss, "single_label_classification"),
        }
    return said
