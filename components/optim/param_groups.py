"""Which parameters train, and with which rate and weight decay: the groups that an optimizer receives."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from components.optim.layer_decay import is_in_block, is_under, measure_depths

# The norms whose weights may have two dimensions or more; those of all others are vectors.
_NORMS = (nn.LayerNorm, nn.RMSNorm)


def build_param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    lr: float | None = None,
    head_lr: float | None = None,
    head_prefixes: Sequence[str] = (),
    layer_decay: float | None = None,
    stacks: Sequence[str] = (),
    decay_embeddings: bool = True,
) -> list[dict[str, Any]]:
    """Split the trainable parameters of `model` into groups: by rate (body and head, or layers), decayed and not.

    Not decayed are biases, parameters of normalisation layers, every tensor with fewer than two dimensions, what a
    module names in its `no_weight_decay()` (timm's convention) and, without `decay_embeddings`, the weights of every
    `nn.Embedding`. Frozen parameters are in no group; a shared one is in one group, under its first name.

    Args:
        model: The model, already frozen where it shall be.
        weight_decay: Of the decayed groups.
        lr: Rate of the body; None leaves it to the optimizer's own argument.
        head_lr: Rate of the head, None for the body's.
        head_prefixes: Names of the head's modules or parameters (`classifier`, `model.lm_head`).
        layer_decay: Factor on the rate from each layer to the one below it (`layer_decay.measure_depths` says what a
            layer is), None for the same rate everywhere. The body's last block has `lr * layer_decay`; what lies after
            the blocks and is not in `head_prefixes` has `lr`. Needs `lr`.
        stacks: With `layer_decay`, the modules whose children are the blocks, where they cannot be found.
        decay_embeddings: Whether embeddings are decayed.

    Returns:
        Groups with the keys params, name (`body_decay`, `head_no_decay`; with layers `body_3_decay`, 3 the depth),
        weight_decay and, where given, lr: a schedule or Adafactor's `scale_parameter` multiplies it, so that the
        groups keep their ratios. Their order, by depth, and the order within them follow the model alone, so that a
        state_dict finds its parameters again.

    Raises:
        ValueError: If nothing is trainable, a prefix matches no parameter, `head_lr` has no `head_prefixes`,
            `layer_decay` no `lr`, or a model no layers that can be found.
    """
    names = [name for name, _ in model.named_parameters()]
    _check_head(names, head_lr, head_prefixes)
    undecayed = _undecayed_names(model, decay_embeddings)
    parts = _body_parts(model, lr, layer_decay, head_prefixes, stacks)
    head = _Part(math.inf, "head", lr if head_lr is None else head_lr)
    groups: dict[tuple[_Part, bool], dict[str, Any]] = {}
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        part = head if any(is_under(name, prefix) for prefix in head_prefixes) else parts[name]
        key = (part, name in undecayed)
        if key not in groups:
            groups[key] = _open_group(*key, weight_decay)
        groups[key]["params"].append(param)
    if not groups:
        raise ValueError(f"none of the {len(names)} parameters of {type(model).__name__} is trainable; freeze fewer")
    return [groups[key] for key in sorted(groups)]


class _Part(NamedTuple):
    """Parameters of one rate; the parts are ordered by depth."""

    depth: float
    name: str
    lr: float | None


def _body_parts(
    model: nn.Module, lr: float | None, layer_decay: float | None, head_prefixes: Sequence[str], stacks: Sequence[str]
) -> dict[str, _Part]:
    """The part of each parameter that is not in `head_prefixes`."""
    if layer_decay is None:
        if stacks:
            raise ValueError(f"stacks={list(stacks)} serve layer_decay only; give both or neither")
        return dict.fromkeys((name for name, _ in model.named_parameters()), _Part(0, "body", lr))
    if lr is None:
        raise ValueError(
            f"layer_decay={layer_decay} needs the lr that it scales; an optimizer that makes its own rate "
            "(relative_step=True) cannot have it"
        )
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay={layer_decay} must lie in (0, 1]; 1 leaves all rates alike, 0.8 is usual")
    depths = measure_depths(model, head_prefixes=head_prefixes, stacks=stacks)
    return {
        name: _Part(depth, f"body_{depth}", lr * layer_decay ** (depths.of_head - depth))
        for name, depth in depths.by_name.items()
    }


def _open_group(part: _Part, is_undecayed: bool, weight_decay: float) -> dict[str, Any]:
    name = f"{part.name}_no_decay" if is_undecayed else f"{part.name}_decay"
    rate = {} if part.lr is None else {"lr": part.lr}
    return {"params": [], "name": name, "weight_decay": 0.0 if is_undecayed else weight_decay, **rate}


def freeze_embeddings(model: nn.Module) -> list[str]:
    """Freeze the input embeddings of `model` and return the names of what was frozen.

    These are what `get_input_embeddings()` gives, of the outermost module that has it (transformers' convention;
    position embeddings stay trainable), or else every `nn.Embedding` outside the blocks. T5's position biases, which
    lie in its first blocks, stay trainable; a head tied to the embeddings is the same parameter and is frozen with it.

    Raises:
        ValueError: If the model has no embeddings.
    """
    embeddings = _input_embeddings(model)
    if not embeddings:
        raise ValueError(f"{type(model).__name__} has no embeddings to freeze; leave freeze_embeddings off")
    frozen = {id(param) for embedding in embeddings for param in embedding.parameters()}
    for embedding in embeddings:
        embedding.requires_grad_(False)
    return [name for name, param in model.named_parameters() if id(param) in frozen]


def _input_embeddings(model: nn.Module) -> list[nn.Module]:
    for module in model.modules():
        if callable(getattr(module, "get_input_embeddings", None)):
            return [module.get_input_embeddings()]  # type: ignore[operator]
    embeddings = {path: module for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return [module for path, module in embeddings.items() if not is_in_block(model, path)]


def _undecayed_names(model: nn.Module, decay_embeddings: bool) -> set[str]:
    kinds = _NORMS if decay_embeddings else (*_NORMS, nn.Embedding)
    modules = [module for module in model.modules() if isinstance(module, kinds)]
    exempt = {id(param) for module in modules for param in module.parameters(recurse=False)}
    names: set[str] = set()
    for path, module in model.named_modules():
        declared = getattr(module, "no_weight_decay", None)
        if callable(declared):
            names.update(f"{path}.{name}" if path else name for name in declared())
    for name, param in model.named_parameters():
        if param.ndim < 2 or name.rpartition(".")[2] == "bias" or id(param) in exempt:
            names.add(name)
    return names


def _check_head(names: Sequence[str], head_lr: float | None, head_prefixes: Sequence[str]) -> None:
    if head_lr is not None and not head_prefixes:
        raise ValueError(f"head_lr={head_lr} needs head_prefixes that say which parameters are the head's")
    for prefix in head_prefixes:
        if not any(is_under(name, prefix) for name in names):
            tops = sorted({name.partition(".")[0] for name in names})
            raise ValueError(f"head_prefixes: {prefix!r} matches no parameter; the model's parts are {', '.join(tops)}")
