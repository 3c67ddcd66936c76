"""T5 and mT5 (arXiv:1910.10683, arXiv:2010.11934): building them, and checkpoints that transformers reads and writes.

Our own code, so that training runs at the speed of the matrix products on a CPU core and does not move with
transformers' versions; its classes are the reference in the tests. transformers 5 ties input and output embeddings of
every T5 built from a configuration and writes "tied" into every file; here the tensors of a file decide (`load_t5`).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.models.shared.pretrained import read_config, read_tensors, resolve_checkpoint
from components.models.t5.architecture import T5Architecture, architecture_config, read_architecture
from components.models.t5.model import CLASSIFIER_LOSSES, DecoderState, T5Classifier, T5Model, T5Seq2Seq

__all__ = [
    "CLASSIFIER_LOSSES",
    "DecoderState",
    "T5Architecture",
    "T5Classifier",
    "T5Model",
    "T5Seq2Seq",
    "create_t5",
    "load_t5",
    "save_t5",
]

HEADS = ("seq2seq", "classifier")
EMBEDDING, LM_HEAD = "shared.weight", "lm_head.weight"
# Copies of the embedding under other names, which older files carry; they must equal it.
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Written by old T5 v1.0 files, used by no implementation.
UNUSED_KEYS = frozenset({"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"})


def create_t5(
    architecture: T5Architecture,
    *,
    head: str,
    num_classes: int | None = None,
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> T5Model:
    """A model with freshly drawn weights (torch's global generator); `head` is "seq2seq" or "classifier".

    Raises ValueError for an unknown head or loss, and for a classifier without `num_classes`.
    """
    model = _build(architecture, head, num_classes, loss, label_smoothing, z_loss)
    model.initialise()
    return model


def load_t5(
    folder_or_name: str | Path,
    *,
    head: str,
    num_classes: int | None = None,
    dropout: float | None = None,
    loss: str | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    local_files_only: bool = False,
) -> T5Model:
    """A model in float32 from a folder, a Kaggle input or a hub name (`pretrained.resolve_checkpoint`).

    Whether the head is tied is what the file's matrices say. A classifier keeps the head of a classifier's checkpoint
    (`num_classes` and `loss` may then be left out) and gets a fresh one on any other. Raises ValueError that names the
    file and the tensors that are missing, unexpected or of another shape.
    """
    folder = resolve_checkpoint(folder_or_name, local_files_only=local_files_only)
    config = read_config(folder)
    architecture = read_architecture(config, source=str(folder / "config.json"))
    if dropout is not None:
        architecture = replace(architecture, dropout=dropout)
    file, tensors = read_tensors(folder)
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    _settle_embeddings(tensors, file)
    if "classifier" not in config and (head != "classifier" or LM_HEAD in tensors):
        architecture = _settled_architecture(architecture, config, tensors, file)
    if head == "classifier":
        return _load_classifier(architecture, config, tensors, file, num_classes=num_classes, loss=loss)
    if "classifier" in config:
        raise ValueError(f"{folder}: holds a classifier, whose head writes no text; load it with head classifier")
    if architecture.tie_embeddings:
        tensors.pop(LM_HEAD, None)
    with torch.device("meta"):
        model = _build(architecture, head, num_classes, "cross_entropy", label_smoothing, z_loss)
    return _filled(model, tensors, file)


def save_t5(model: T5Model, folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` into `folder` (made if needed) and return it.

    transformers' T5ForConditionalGeneration (or MT5) loads a seq2seq folder to equal logits. A classifier's folder says
    so under the key "classifier".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = architecture_config(model.architecture)
    if isinstance(model, T5Classifier):
        config["classifier"] = {"num_classes": model.num_classes, "loss": model.loss}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _build(
    architecture: T5Architecture, head: str, num_classes: int | None, loss: str, label_smoothing: float, z_loss: float
) -> T5Model:
    if head == "seq2seq":
        return T5Seq2Seq(architecture, label_smoothing=label_smoothing, z_loss=z_loss)
    if head != "classifier":
        raise ValueError(f"head: must be one of {', '.join(HEADS)}, not {head!r}")
    if num_classes is None:
        raise ValueError("num_classes: a classifier needs the number of its classes")
    return T5Classifier(architecture, num_classes=num_classes, loss=loss)


def _settle_embeddings(tensors: dict[str, Tensor], file: Path) -> None:
    """Leave the embedding under its one name and drop what is known to be unused."""
    for name in EMBEDDING_COPIES:
        copy = tensors.pop(name, None)
        if copy is not None and not torch.equal(tensors.setdefault(EMBEDDING, copy), copy):
            raise ValueError(f"{file}: {name} differs from {EMBEDDING}; T5 has one embedding for both stacks")
    for name in UNUSED_KEYS:
        tensors.pop(name, None)


def _settled_architecture(
    architecture: T5Architecture, config: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path
) -> T5Architecture:
    """The architecture with the tying that the tensors show."""
    # A file without the key (before transformers 5) scales exactly when it ties
    scale = architecture.scale_decoder_outputs if "scale_decoder_outputs" in config else None
    return replace(architecture, tie_embeddings=_is_tied(config, tensors, file), scale_decoder_outputs=scale)


def _is_tied(config: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> bool:
    """Whether one matrix serves as embedding and head: the tensors decide, the configuration must not contradict."""
    says_tied = bool(config.get("tie_word_embeddings", True))
    # transformers 5 writes true whatever the model is
    is_meant = "scale_decoder_outputs" not in config and not str(config.get("transformers_version", "")).startswith("5")
    if LM_HEAD not in tensors:
        if not says_tied:
            raise ValueError(
                f"{file}: no {LM_HEAD}, but config.json says tie_word_embeddings false; the file has lost its head, "
                "or was saved tied: then set tie_word_embeddings to true"
            )
        return True
    if EMBEDDING in tensors and torch.equal(tensors[EMBEDDING], tensors[LM_HEAD]):
        return says_tied
    if says_tied and is_meant:
        raise ValueError(
            f"{file}: {EMBEDDING} and {LM_HEAD} differ, but config.json says (or leaves to the default) "
            "tie_word_embeddings true; set it to false for T5 v1.1 and mT5, or remove the head from the file"
        )
    return False


def _load_classifier(
    architecture: T5Architecture,
    config: Mapping[str, Any],
    tensors: dict[str, Tensor],
    file: Path,
    *,
    num_classes: int | None,
    loss: str | None,
) -> T5Model:
    saved: Mapping[str, Any] = config.get("classifier", {})
    if saved and num_classes not in (None, saved["num_classes"]):
        raise ValueError(
            f"num_classes: {num_classes}, but {file.parent} holds a head of {saved['num_classes']} classes"
        )
    chosen_loss = loss or saved.get("loss", "cross_entropy")
    with torch.device("meta"):
        model = _build(architecture, "classifier", saved.get("num_classes", num_classes), chosen_loss, 0.0, 0.0)
    if not saved:
        # The head over the vocabulary is replaced: that is the classifier
        tensors[LM_HEAD] = torch.empty_like(model.get_parameter(LM_HEAD), device="cpu")
    _filled(model, tensors, file)
    if not saved:
        model.initialise_head()
    return model


def _filled(model: T5Model, tensors: Mapping[str, Tensor], file: Path) -> T5Model:
    """The model with exactly these tensors as its parameters."""
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"{file}: does not fit its config.json: {'; '.join(problems[:8])}{more}; "
            "the two files belong to different models, or one is damaged"
        )
    model.load_state_dict(dict(tensors), assign=True)
    return model
