"""Weights of our encoder under transformers' names, both ways."""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from components.models.bert.architecture import PARTS, BertArchitecture

# Of pre-training heads, and buffers of old versions.
IGNORED = re.compile(
    r"(^|\.)(cls|lm_head|vocab_transform|vocab_layer_norm|vocab_projector|discriminator_predictions|"
    r"generator_predictions|generator_lm_head)\.|embeddings\.(position_ids|token_type_ids)$"
)
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def to_own_names(tensors: Mapping[str, Tensor], architecture: BertArchitecture) -> dict[str, Tensor]:
    """The tensors of a file under our names: the encoder's, `pooler.*`, and what else it holds as it is called there.

    Raises ValueError where one of query, key and value is missing.
    """
    prefix = architecture.family.prefix + "."
    found = {_modern(name).removeprefix(prefix): tensor for name, tensor in tensors.items() if not IGNORED.search(name)}
    own: dict[str, Tensor] = {}
    for name, theirs in _name_pairs(architecture):
        present = [part for part in theirs if part in found]
        if present and len(present) < len(theirs):
            missing = next(part for part in theirs if part not in found)
            raise ValueError(f"missing {missing}, though {present[0]} is there")
        if present:
            parts = [found.pop(part) for part in theirs]
            own[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return own | found


def to_their_names(tensors: Mapping[str, Tensor], architecture: BertArchitecture) -> dict[str, Tensor]:
    """The encoder's tensors as transformers names them, without a prefix."""
    left = dict(tensors)
    theirs: dict[str, Tensor] = {}
    for name, names in _name_pairs(architecture):
        if name in left:
            parts = left.pop(name).chunk(len(names))
            theirs |= {part_name: part.clone() for part_name, part in zip(names, parts, strict=True)}
    return theirs | left


def list_problems(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What keeps `tensors` from being the parameters `expected`, one short sentence each."""
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    return problems + [
        f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]


def join_problems(problems: Iterable[str], most: int = 8) -> str:
    """The first of them in one line, and how many more there are."""
    listed = list(problems)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return "; ".join(listed[:most]) + more


def _modern(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _name_pairs(architecture: BertArchitecture) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our name of each tensor whose name differs, and transformers' of the tensors that it is made of."""
    family = architecture.family
    yield from ((f"embeddings.norm.{kind}", (f"embeddings.LayerNorm.{kind}",)) for kind in ("weight", "bias"))
    yield from ((f"embeddings.project.{kind}", (f"embeddings_project.{kind}",)) for kind in ("weight", "bias"))
    parts = PARTS.get(architecture.model_type, PARTS["bert"])
    for index in range(architecture.num_layers):
        for own, theirs in family.names.items():
            # Only one of our modules is made of several
            each = [theirs.format(part=part) for part in parts] if "{part}" in theirs else [theirs]
            for kind in ("weight", "bias"):
                yield f"layer.{index}.{own}.{kind}", tuple(f"{family.layers}.{index}.{name}.{kind}" for name in each)
