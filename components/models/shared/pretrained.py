"""Where a checkpoint is found (a folder, a Kaggle input, the hub) and how its tensors are read, never pickled code."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_PREFIX = "kaggle:"
# What a text checkpoint needs and nothing of other frameworks' copies of the same weights.
HUB_PATTERNS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-*.bin",
    "pytorch_model.bin.index.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    # How sentence-transformers pools
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "wide.safetensors",
)


def resolve_checkpoint(
    name_or_folder: str | Path, *, kaggle_input_root: Path = KAGGLE_INPUT, local_files_only: bool = False
) -> Path:
    """The local folder of a checkpoint.

    Takes an existing folder, a Kaggle input ("kaggle:owner/dataset" or
    "kaggle:owner/model/framework/variation/version", found under the mounts of before and after 2026), or a hub name
    ("google/mt5-base"), which is downloaded or taken from the cache (`local_files_only`: only from the cache).
    Raises ValueError that says what was tried and what would work.
    """
    name = str(name_or_folder)
    if name.startswith(KAGGLE_PREFIX):
        return _resolve_kaggle_input(name, kaggle_input_root)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(f"{name}: a file, not a checkpoint folder; pass its folder {folder.parent}")
    if not _is_hub_name(name):
        raise ValueError(
            f"{name}: no such folder, and no hub name (owner/model) either; pass the folder that holds config.json"
        )
    return _download(name, local_files_only=local_files_only)


def _is_hub_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and all(part and not part.startswith((".", "~")) for part in parts) and "\\" not in name


def _resolve_kaggle_input(name: str, root: Path) -> Path:
    parts = name.removeprefix(KAGGLE_PREFIX).strip("/").split("/")
    if len(parts) not in (2, 5) or not all(parts):
        raise ValueError(
            f"{name}: a Kaggle input is kaggle:owner/dataset or kaggle:owner/model/framework/variation/version"
        )
    candidates = list(_kaggle_mounts(parts, root))
    for candidate in candidates:
        if candidate.is_dir():
            return _descend_to_config(candidate)
    tried = ", ".join(str(candidate) for candidate in candidates)
    kind = "model_sources" if len(parts) == 5 else "dataset_sources"
    raise ValueError(f"{name}: not attached (looked for {tried}); add it to the kernel's {kind}, or pass a folder")


def _kaggle_mounts(parts: list[str], root: Path) -> Iterator[Path]:
    if len(parts) == 2:
        owner, slug = parts
        yield root / "datasets" / owner / slug
        yield root / slug
        return
    owner, model, framework, variation, version = parts
    for spelling in dict.fromkeys((framework.lower(), framework)):
        yield root / "models" / owner / model / spelling / variation / version
        yield root / model / spelling / variation / version


def _descend_to_config(folder: Path) -> Path:
    # An uploaded folder often arrives one level down
    if (folder / "config.json").is_file():
        return folder
    inner = sorted(path.parent for path in folder.glob("*/config.json"))
    return inner[0] if len(inner) == 1 else folder


def _download(name: str, *, local_files_only: bool) -> Path:
    # Loaded late: a run from a folder must not need the hub's client
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_PATTERNS), local_files_only=local_files_only))
    except Exception as error:  # the client raises a dozen unrelated types when it is offline, refused or misnamed
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{name}: no folder of that name, not in the local hub cache, and the hub did not give it "
            f"({type(error).__name__}: {reason[0] if reason else 'no message'}); check the name, or run "
            f"`hf download {name} --local-dir {name.split('/')[-1]}` where there is a network and pass that folder"
        ) from error


def read_config(folder: Path) -> dict[str, object]:
    """The parsed `config.json` of a checkpoint folder. Raises ValueError when it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no config.json; a checkpoint folder holds one beside its weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); download the file again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds a {type(config).__name__}, not an object; download the file again")
    return config


def read_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """All tensors of a checkpoint folder, on CPU, and the file (or index) that named them.

    Takes `model.safetensors`, a sharded set with its index, or `pytorch_model.bin` the same two ways, in that order.
    Raises ValueError for a missing or broken file, and for an index and shards that disagree.
    """
    for stem in ("model.safetensors", "pytorch_model.bin"):
        path, index = folder / stem, folder / f"{stem}.index.json"
        if path.is_file():
            return path, _read_file(path)
        if index.is_file():
            return index, _read_shards(index)
    raise ValueError(f"{folder}: no model.safetensors and no pytorch_model.bin (nor an index of shards)")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own family of errors for a truncated file
        raise ValueError(f"{path}: cannot be read ({error}); the file is damaged, copy or download it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path}: holds no plain table of tensors")
    return dict(tensors)


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        placed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: no index of shards ({error!r}); download it again") from error
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(placed.values())):
        if not (index.parent / shard).is_file():
            raise ValueError(f"{index}: shard {shard} is missing beside it; download the folder again")
        tensors.update(_read_file(index.parent / shard))
    if tensors.keys() != placed.keys():
        differing = ", ".join(sorted(tensors.keys() ^ placed.keys())[:5])
        raise ValueError(f"{index}: the index and its shards name different tensors ({differing}); download them again")
    return tensors
