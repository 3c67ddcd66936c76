"""XCiT's checkpoints: where they are found, in which of two layouts, whether they fit, and how ours are written.

timm's layout is ours. The authors' names the positions' module otherwise and joins class attention's query, key and
value. Nothing is resized: Fourier positions fit every image.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.models.shared.pretrained import read_config, read_tensors, resolve_checkpoint
from components.models.xcit.architecture import XCiTArchitecture, read_name, recognise, with_changes

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
OWN_KEY = "xcit"  # of config.json: the whole architecture, beside what timm reads
# ImageNet's pixel statistics, with which all published weights were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_NAMED = 6


@dataclass
class FoundCheckpoint:
    """A checkpoint's tensors in timm's naming, the file they came from, and the architecture that it claims to be."""

    file: Path
    tensors: dict[str, Tensor]
    architecture: XCiTArchitecture


def read_checkpoint(checkpoint: str | Path, *, name: str | None, local_files_only: bool) -> FoundCheckpoint:
    """Find and read a checkpoint; see `load_xcit`."""
    path = Path(checkpoint).expanduser()
    config: Mapping[str, Any] = {}
    if path.is_file():
        file, tensors = path, _read_file(path)
    else:
        folder = resolve_checkpoint(_as_hub_name(str(checkpoint)), local_files_only=local_files_only)
        file, tensors = _read_folder(folder)
        config = read_config(folder) if (folder / "config.json").is_file() else {}
    tensors = in_timm_layout(tensors)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return FoundCheckpoint(file, tensors, _read_architecture(file, tensors, config, name))


def _as_hub_name(name: str) -> str:
    """timm's and the authors' short names -> the hub's; everything else as it is."""
    if "/" in name or not name.startswith("xcit_") or Path(name).exists():
        return name
    model, _, tag = name.partition(".")
    is_distilled = model.endswith(("_dist", "_384"))  # at 384 pixels only distilled ones exist
    return f"timm/{model.removesuffix('_dist')}.{tag or ('fb_dist_in1k' if is_distilled else 'fb_in1k')}"


def _read_folder(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    if any((folder / stem).exists() for stem in ("model.safetensors", "pytorch_model.bin")):
        return read_tensors(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        held = ", ".join(path.name for path in files) or "none"
        raise ValueError(
            f"{folder}: needs model.safetensors, pytorch_model.bin or one other file of weights, and holds {held}; "
            "pass the path of the file"
        )
    return files[0], _read_file(files[0])


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: not a file of weights; its name must end in one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own family of errors for a truncated file
        raise ValueError(f"{path}: cannot be read ({error}); the file is damaged, copy or download it again") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]  # the authors' files hold a training state around it
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no plain table of tensors, nor one under the key model")
    return dict(content)


def in_timm_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split the authors' tensors; timm's come back as they are."""
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        key = key.removeprefix("module.").replace("pos_embeder.", "pos_embed.")
        stem, joint, kind = key.partition(".attn.qkv.")
        if joint and stem.startswith("cls_attn_blocks."):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{stem}.attn.{letter}.{kind}"] = part.contiguous()
        else:
            renamed[key] = value
    return renamed


def _read_architecture(
    file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], name: str | None
) -> XCiTArchitecture:
    if OWN_KEY in config and name is None:
        known = {field.name for field in fields(XCiTArchitecture)}
        return XCiTArchitecture(**{key: value for key, value in config[OWN_KEY].items() if key in known})
    claimed = name or config.get("architecture")
    architecture = read_name(str(claimed)) if claimed else _recognised(file, tensors)
    if "head.weight" in tensors:
        architecture = with_changes(architecture, num_classes=len(tensors["head.weight"]))
    elif config.get("num_classes") == 0:
        architecture = with_changes(architecture, num_classes=0)
    first = tensors.get("patch_embed.proj.0.0.weight")
    return architecture if first is None else with_changes(architecture, in_chans=first.shape[1])


def _recognised(file: Path, tensors: Mapping[str, Tensor]) -> XCiTArchitecture:
    """The published architecture whose sizes the tensors have."""
    blocks = {key.split(".")[1] for key in tensors if key.startswith("blocks.")}
    stages = {key.split(".")[2] for key in tensors if key.startswith("patch_embed.proj.")}
    try:
        dim, heads = tensors["cls_token"].shape[-1], len(tensors["blocks.0.attn.temperature"])
    except KeyError as error:
        raise ValueError(f"{file}: has no tensor {error}, so these are no XCiT's weights") from error
    architecture = recognise(dim, len(blocks), heads, 2 ** len(stages))
    if architecture is None:
        raise ValueError(
            f"{file}: {len(blocks)} blocks of width {dim} with {heads} heads are no published XCiT; say which one it "
            "is by name, or put the config.json beside it"
        )
    return architecture


def fitted_tensors(found: FoundCheckpoint, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors, if they are exactly those expected; else a ValueError that names what is not."""
    tensors = found.tensors
    problems = [f"missing {key}" for key in expected if key not in tensors]
    problems += [f"unexpected {key}" for key in tensors if key not in expected]
    problems += [
        f"{key} is {list(tensors[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise ValueError(
            f"{found.file}: does not fit {found.architecture.name}: {'; '.join(problems[:MOST_NAMED])}{more}; "
            "it belongs to another size or patch, or is damaged"
        )
    return tensors


def write_checkpoint(tensors: Mapping[str, Tensor], architecture: XCiTArchitecture, folder: Path) -> Path:
    """Write config.json and model.safetensors; see `save_xcit`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(checkpoint_config(architecture), indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def checkpoint_config(architecture: XCiTArchitecture) -> dict[str, Any]:
    """What config.json says: in timm's words, so that `timm.create_model("local-dir:FOLDER")` builds the same model
    where timm knows it, and the whole architecture in ours."""
    size = [architecture.in_chans, architecture.img_size, architecture.img_size]
    changed = {
        key: value
        for key, value in asdict(architecture).items()
        if key in ("embed_dim", "depth", "cls_attn_layers", "num_heads", "eta", "patch_size")
        and value != getattr(read_name(architecture.name), key)
    }
    return {
        "architecture": architecture.name,
        "num_classes": architecture.num_classes,
        "num_features": architecture.embed_dim,
        "global_pool": "token",
        "model_args": {"in_chans": architecture.in_chans, **changed},
        "pretrained_cfg": {
            "input_size": size,
            "num_classes": architecture.num_classes,
            "first_conv": "patch_embed.proj.0.0",
            "classifier": "head",
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": list(MEAN),
            "std": list(STD),
        },
        OWN_KEY: asdict(architecture),
    }
