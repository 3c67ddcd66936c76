"""How deep in a model each parameter lies, for learning rates that fall from layer to layer.

Features near the input are general and worth keeping, those near the output belong to the old task, so fine-tuning may
move the lower layers less (ELECTRA, arXiv:2003.10555; BEiT, arXiv:2106.08254). `param_groups` makes rates of depths.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from torch import nn

# Weights outside the blocks that belong to the input, wherever they are registered: position and patch embeddings too.
_EMBEDDING_WORD = "embed"
_NO_NAME = "\0"


class LayerDepths(NamedTuple):
    """The depth of each parameter by its name: embeddings 0, the i-th block i + 1, the head `of_head`."""

    by_name: dict[str, int]
    of_head: int


class _Stack(NamedTuple):
    """Blocks that follow one another: `owner` is the module that holds them."""

    owner: str
    blocks: tuple[str, ...]


def measure_depths(model: nn.Module, *, head_prefixes: Sequence[str] = (), stacks: Sequence[str] = ()) -> LayerDepths:
    """Find the blocks of any transformer, and from them the depth of every parameter.

    A timm model says it itself (`group_matcher`). Elsewhere a stack of blocks is an outermost `nn.ModuleList` whose
    members are composite modules of one class. Stacks of one module follow one another; those of different modules,
    such as a T5's encoder and decoder, run side by side and end at the same depth: every decoder block sees the last
    encoder block, so that both last blocks are one step from the output.

    Outside the blocks, embeddings (`nn.Embedding`, or "embed" in the name) and all that is registered before the
    blocks have depth 0, a norm has that of the block before it, and what comes after all blocks (pooler, classifier)
    belongs to the head. A shared parameter counts under its first name: a tied head is an embedding.

    Args:
        model: The model; frozen parameters are measured too.
        head_prefixes: Names of modules or parameters that are the head wherever they stand.
        stacks: Names of the modules whose children are the blocks, where they cannot be found.

    Raises:
        ValueError: If there is no stack, or a name in `stacks` is none of the model's.
    """
    names = [name for name, _ in model.named_parameters()]
    if not stacks and (path := _find_timm(model)) is not None:
        return _ask_timm(model, path, names, head_prefixes)
    found = _named_stacks(model, stacks) if stacks else list(_find_stacks(model, head_prefixes))
    if not found:
        raise ValueError(
            f"layer_decay: found no stack of blocks in {type(model).__name__} (an nn.ModuleList of modules of one "
            "class); name the module that holds the blocks in stacks, or leave layer_decay out"
        )
    block_depths = _align(found)
    of_head = max(block_depths.values()) + 1
    by_name = _place(model, found, block_depths, of_head)
    return LayerDepths(_with_heads(by_name, head_prefixes, of_head), of_head)


def is_under(name: str, prefix: str) -> bool:
    """Whether a parameter or module is `prefix` or lies within it; "" is the whole model."""
    return not prefix or name == prefix or name.startswith(prefix + ".")


def is_in_block(model: nn.Module, path: str) -> bool:
    """Whether the module at `path` lies within a block of a stack that can be found."""
    return any(is_under(path, block) for stack in _find_stacks(model, ()) for block in stack.blocks)


def _find_timm(model: nn.Module) -> str | None:
    paths = (path for path, module in model.named_modules() if callable(getattr(module, "group_matcher", None)))
    return next(paths, None)


def _ask_timm(model: nn.Module, path: str, names: Sequence[str], head_prefixes: Sequence[str]) -> LayerDepths:
    """timm's own depths; what its patterns do not know, a head within or around its model, comes last."""
    from timm.models._manipulate import group_with_matcher

    prefix = f"{path}." if path else ""
    matcher = model.get_submodule(path).group_matcher(coarse=False)  # type: ignore[operator]
    # No pattern matches the last name, whose depth is therefore that of a head, present or not.
    inner = [*(name.removeprefix(prefix) for name in names if name.startswith(prefix)), _NO_NAME]
    known: dict[str, int] = group_with_matcher(((name, None) for name in inner), matcher, reverse=True)
    of_head = known[_NO_NAME]
    by_name = {name: known[name.removeprefix(prefix)] if name.startswith(prefix) else of_head for name in names}
    return LayerDepths(_with_heads(by_name, head_prefixes, of_head), of_head)


def _with_heads(by_name: dict[str, int], head_prefixes: Sequence[str], of_head: int) -> dict[str, int]:
    return {
        name: of_head if any(is_under(name, prefix) for prefix in head_prefixes) else depth
        for name, depth in by_name.items()
    }


def _find_stacks(model: nn.Module, head_prefixes: Sequence[str]) -> Iterator[_Stack]:
    seen: list[str] = []
    for path, module in model.named_modules():
        if any(is_under(path, outer) for outer in (*seen, *head_prefixes)):
            continue
        if isinstance(module, nn.ModuleList) and _are_blocks(list(module)):
            seen.append(path)
            yield _stack_at(path, module)


def _are_blocks(members: Sequence[nn.Module]) -> bool:
    is_composite = all(any(True for _ in member.children()) for member in members)
    holds_weights = all(any(True for _ in member.parameters()) for member in members)
    return len({type(member) for member in members}) == 1 and is_composite and holds_weights


def _named_stacks(model: nn.Module, paths: Sequence[str]) -> list[_Stack]:
    modules = dict(model.named_modules())
    for path in paths:
        if path not in modules or not any(True for _ in modules[path].children()):
            raise ValueError(f"stacks: {path!r} is no module of {type(model).__name__} that holds blocks")
    return [_stack_at(path, modules[path]) for path in paths]


def _stack_at(path: str, module: nn.Module) -> _Stack:
    return _Stack(path.rpartition(".")[0], tuple(f"{path}.{child}" for child, _ in module.named_children()))


def _align(stacks: Sequence[_Stack]) -> dict[str, int]:
    """The depth of each block: in series within an owner, side by side and ending together across owners."""
    series: dict[str, list[str]] = {}
    for stack in stacks:
        series.setdefault(stack.owner, []).extend(stack.blocks)
    longest = max(len(blocks) for blocks in series.values())
    return {
        block: longest - len(blocks) + index + 1 for blocks in series.values() for index, block in enumerate(blocks)
    }


def _place(model: nn.Module, stacks: Sequence[_Stack], block_depths: dict[str, int], of_head: int) -> dict[str, int]:
    """The depth of every parameter, by the order in which they are registered."""
    names = [name for name, _ in model.named_parameters()]
    blocks = {name: block for name in names if (block := _enclosing(name, block_depths)) is not None}
    if not blocks:
        raise ValueError("stacks: the blocks hold no parameters of their own")
    starts: dict[str, int] = {}
    for stack in stacks:
        first = min((index for index, name in enumerate(names) if blocks.get(name) in stack.blocks), default=len(names))
        starts[stack.owner] = min(first, starts.get(stack.owner, first))
    end = max(index for index, name in enumerate(names) if name in blocks)
    embeddings, norms = _outer_parameters(model, [stack.owner for stack in stacks])
    by_name, previous = {}, 0
    for index, name in enumerate(names):
        if name in blocks:
            previous = block_depths[blocks[name]]
        elif index > end and name not in embeddings | norms:
            previous = of_head  # and that of the norms after it
        is_input = name in embeddings or any(index < first for owner, first in starts.items() if is_under(name, owner))
        by_name[name] = 0 if is_input and name not in blocks else previous
    return by_name


def _enclosing(name: str, paths: Iterable[str]) -> str | None:
    return next((path for path in paths if is_under(name, path)), None)


def _outer_parameters(model: nn.Module, owners: Sequence[str]) -> tuple[set[str], set[str]]:
    """Names of the parameters of embeddings, and of norms, blocks not excepted."""
    embeddings, norms = set(), set()
    for path, module in model.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            name = f"{path}.{leaf}" if path else leaf
            if isinstance(module, nn.Embedding) or _EMBEDDING_WORD in _own_part(name, owners).lower():
                embeddings.add(name)
            elif "norm" in type(module).__name__.lower():
                norms.add(name)
    return embeddings, norms


def _own_part(name: str, owners: Sequence[str]) -> str:
    """What is left of `name` without the modules around the blocks: a model called "embedder" is no embedding."""
    parts = name.split(".")
    pairs = (zip(parts, owner.split("."), strict=False) for owner in owners)
    num_shared = max(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pair_list)) for pair_list in pairs)
    return ".".join(parts[num_shared:])
