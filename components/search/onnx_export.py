"""From a checkpoint folder (config.json, model.safetensors, tokenizer.json) to the folder that `OnnxEncoder` reads."""

import shutil
from pathlib import Path

from safetensors.numpy import load_file

from components.files.atomic import atomic_folder, read_json, write_json
from components.search.encoders import MODEL_FILE, RECORD_FILE, fingerprint_files
from components.search.onnx_bert import write_bert
from components.search.token_batches import TOKENIZER_FILE

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
WIDE_FILE = "wide.safetensors"
"""Of `components.models.sentence.wide`, which needs torch."""


def fingerprint_checkpoint(folder: Path, *, max_length: int) -> str:
    """What an encoder's vectors depend on: weights, configuration, tokenizer, and where texts are cut."""
    names = [WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE, *([WIDE_FILE] if (folder / WIDE_FILE).is_file() else [])]
    return fingerprint_files([folder / name for name in names], max_length=max_length)


def export_encoder(checkpoint: Path, folder: Path, *, name: str, max_length: int) -> None:
    """Write `folder`, whole or not at all. Raises ValueError for a checkpoint that is no BERT."""
    for needed in (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE):
        if not (checkpoint / needed).is_file():
            raise ValueError(f"{checkpoint}: no {needed}; an encoder's folder holds it")
    _check_pooling(checkpoint)
    config, file = read_json(checkpoint / CONFIG_FILE), checkpoint / WIDE_FILE
    wide = load_file(file) if file.is_file() else None
    with atomic_folder(folder) as partial:
        write_bert(config, load_file(checkpoint / WEIGHTS_FILE), partial / MODEL_FILE, wide=wide)
        shutil.copyfile(checkpoint / TOKENIZER_FILE, partial / TOKENIZER_FILE)
        record = {
            "name": name,
            "dimension": config["hidden_size"] if wide is None else wide["bag.weight"].shape[1],
            "max_length": max_length,
            "fingerprint": fingerprint_checkpoint(checkpoint, max_length=max_length),
        }
        write_json(partial / RECORD_FILE, record)


def _check_pooling(checkpoint: Path) -> None:
    """Raises ValueError where sentence-transformers' file says another pooling than the graph has."""
    file = checkpoint / "1_Pooling" / "config.json"
    modes = {name for name, value in read_json(file).items() if value is True} if file.is_file() else set()
    other = {name for name in modes if name.startswith("pooling_mode_")} - {"pooling_mode_mean_tokens"}
    if other:
        raise ValueError(f"{file}: {', '.join(sorted(other))} is not exported; only the mean over tokens is")
