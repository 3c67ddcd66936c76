"""Which parameters train, and with which rate and weight decay: the groups that an optimizer receives."""

from collections.abc import Sequence
from typing import Any

from torch import nn

# The norms whose weights may have two dimensions or more; those of all others are vectors.
_NORMS = (nn.LayerNorm, nn.RMSNorm)


def build_param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    lr: float | None = None,
    head_lr: float | None = None,
    head_prefixes: Sequence[str] = (),
    decay_embeddings: bool = True,
) -> list[dict[str, Any]]:
    """Split the trainable parameters of `model` into at most four groups: body and head, decayed and not.

    Not decayed are biases, parameters of normalisation layers, every tensor with fewer than two dimensions, what a
    module names in its `no_weight_decay()` (timm's convention) and, without `decay_embeddings`, the weights of every
    `nn.Embedding`. Frozen parameters are in no group; a shared one is in one group, under its first name.

    Args:
        model: The model, already frozen where it shall be.
        weight_decay: Of the decayed groups.
        lr: Rate of the body; None leaves it to the optimizer's own argument.
        head_lr: Rate of the head, None for the body's.
        head_prefixes: Names of the head's modules or parameters (`classifier`, `model.lm_head`).
        decay_embeddings: Whether embeddings are decayed.

    Returns:
        Groups with the keys params, name (`body_decay`, `head_no_decay`, …), weight_decay and, where given, lr. Their
        order and the order within them follow the model alone, so that a state_dict finds its parameters again.

    Raises:
        ValueError: If nothing is trainable, a prefix matches no parameter, or `head_lr` has no `head_prefixes`.
    """
    names = [name for name, _ in model.named_parameters()]
    _check_head(names, head_lr, head_prefixes)
    undecayed = _undecayed_names(model, decay_embeddings)
    groups: dict[str, dict[str, Any]] = {}
    for part, part_lr in (("body", lr), ("head", lr if head_lr is None else head_lr)):
        rate = {} if part_lr is None else {"lr": part_lr}
        groups[f"{part}_decay"] = {"params": [], "name": f"{part}_decay", "weight_decay": weight_decay, **rate}
        groups[f"{part}_no_decay"] = {"params": [], "name": f"{part}_no_decay", "weight_decay": 0.0, **rate}

    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        part = "head" if any(_is_under(name, prefix) for prefix in head_prefixes) else "body"
        groups[f"{part}_no_decay" if name in undecayed else f"{part}_decay"]["params"].append(param)
    filled = [group for group in groups.values() if group["params"]]
    if not filled:
        raise ValueError(f"none of the {len(names)} parameters of {type(model).__name__} is trainable; freeze fewer")
    return filled


def freeze_embeddings(model: nn.Module) -> list[str]:
    """Freeze the input embeddings of `model` and return the names of what was frozen.

    These are what `get_input_embeddings()` gives, of the outermost module that has it (transformers' convention;
    position biases and position embeddings stay trainable), or else every `nn.Embedding`. An output head tied to the
    embeddings is the same parameter and is frozen with them.

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
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


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
        if not any(_is_under(name, prefix) for name in names):
            tops = sorted({name.partition(".")[0] for name in names})
            raise ValueError(f"head_prefixes: {prefix!r} matches no parameter; the model's parts are {', '.join(tops)}")


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
