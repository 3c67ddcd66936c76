"""Activation checkpointing by plan, for any stack of layers and without a line in the models.

    with apply_plan(model.encoder.layer, parse_plan("recompute/2")):
        train(model)

A plan replaces `forward` on each layer's instance. Parameter names, classes, hooks, copies and pickles of the model
stay as they were; evaluation, generation and every call without gradients run as if there were no plan. Gradients,
running statistics and the random generators' states after a step equal those without a plan to the bit.

Under `torch.compile` the recomputing treatments become the compiler's own; `rebuild*` and `offload` do nothing there,
as the compiler's partitioner already recomputes what is cheap.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn

from components.memory.plans import (
    ActivationPlan,
    EmbeddingsPlan,
    Piece,
    StackPlan,
    Treatment,
    UniformPlan,
)
from components.memory.treatments import TREATMENTS, recompute

Forward = Callable[..., Any]


class AppliedPlan:
    """A plan at work on `layers`, until `remove()` or the end of a `with` block."""

    def __init__(self, layers: Sequence[nn.Module], plan: StackPlan) -> None:
        self.plan = plan
        self.treated = [treated for piece in plan.pieces(len(layers)) for treated in _treat(layers, piece)]

    def remove(self) -> None:
        """Give every layer its own forward back; a second call does nothing."""
        for treated in self.treated:
            treated.detach()
        self.treated = []

    def __enter__(self) -> "AppliedPlan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def apply_to_model(model: nn.Module, plan: ActivationPlan) -> list[AppliedPlan]:
    """Put `plan` to work on each of the model's `layer_stacks`, and on its `embedding_layers` if it speaks of them.

    Raises ValueError if the model has no such lists, and as `apply_plan` does.
    """
    stacks: Sequence[nn.ModuleList] = getattr(model, "layer_stacks", ())
    embeddings: Sequence[nn.Module] = getattr(model, "embedding_layers", ())
    if not stacks:
        raise ValueError(f"activation plan {plan}: {type(model).__name__} has no layers that a plan could treat")
    applied: list[AppliedPlan] = []
    if isinstance(plan, EmbeddingsPlan):
        if not embeddings:
            raise ValueError(
                f"activation plan {plan}: {type(model).__name__} has no embeddings that a plan could treat; "
                f"write {plan.layers}"
            )
        applied.append(apply_plan(embeddings, UniformPlan(Treatment.REBUILD_ALL)))
        plan = plan.layers
    return [*applied, *(apply_plan(stack, plan) for stack in stacks)]


def apply_plan(layers: Sequence[nn.Module] | nn.ModuleList, plan: StackPlan) -> AppliedPlan:
    """Put `plan` to work on `layers`, in the order in which the model calls them.

    Wrap the model in DDP or `torch.compile` before or after. Raises ValueError if the plan does not fit the number of
    layers, if a layer occurs twice or if it already has a plan.
    """
    modules = list(layers)
    if len({id(layer) for layer in modules}) < len(modules):
        raise ValueError("apply_plan: a layer stands in the list twice; give a shared layer once, its calls are alike")
    for index, layer in enumerate(modules):
        if _is_treated(layer):
            raise ValueError(f"apply_plan: layer {index} already has a plan; remove() that one first")
    return AppliedPlan(modules, plan)


def _is_treated(layer: nn.Module) -> bool:
    return isinstance(getattr(vars(layer).get("forward"), "__self__", None), _TreatedLayer)


def _treat(layers: Sequence[nn.Module], piece: Piece) -> list["_TreatedLayer"]:
    """Replace the forwards of one piece."""
    members = layers[piece.start : piece.stop]
    if len(members) > 1:
        segment = _Segment(piece.start)
        segment.members = [_SegmentLayer(layer, segment, index) for index, layer in enumerate(members)]
        return list(segment.members)
    return [] if piece.treatment is Treatment.KEEP else [_TreatedLayer(members[0], piece.treatment)]


class _TreatedLayer:
    """One layer and its own forward.

    The replacement is a bound method of an object, not a closure, so that a deep copy or a pickle of the model carries
    a treatment of the copied layer.
    """

    def __init__(self, layer: nn.Module, treatment: Treatment) -> None:
        self.layer, self.treatment = layer, treatment
        self.replaced: Forward | None = vars(layer).get("forward")
        layer.forward = self.forward

    @property
    def original(self) -> Forward:
        """The layer's own forward; looked up, as a stored bound method would be unpickled as the replacement."""
        return partial(type(self.layer).forward, self.layer) if self.replaced is None else self.replaced

    def detach(self) -> None:
        if self.replaced is None:
            del self.layer.forward
        else:
            self.layer.forward = self.replaced

    @property
    def is_active(self) -> bool:
        return self.layer.training and torch.is_grad_enabled()

    def forward(self, *args: object, **kwargs: object) -> object:
        if not self.is_active:
            return self.original(*args, **kwargs)
        return TREATMENTS[self.treatment](self.original, (self.layer,), args, kwargs)


class _Segment:
    """Consecutive layers under one checkpoint.

    The first layer's call runs them all and hands out its own result; each later layer, called with its predecessor's
    result, hands out the one that is ready. A model that looks at every layer's result sees the true ones.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.members: list[_SegmentLayer] = []
        self.ready: dict[int, object] = {}
        self.shared: tuple[tuple[object, ...], dict[str, object]] = ((), {})

    def enter(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """The first layer's call."""
        results: Any = recompute(self.run, [member.layer for member in self.members], args, kwargs)
        self.ready = dict(enumerate(results))
        self.shared = (args, kwargs)
        return self.ready[0]

    def run(self, *args: object, **kwargs: object) -> tuple[object, ...]:
        """Every layer's result, each fed with its predecessor's."""
        results = [self.members[0].original(*args, **kwargs)]
        for member in self.members[1:]:
            args, kwargs = _with_hidden(args, kwargs, _hidden(results[-1]))
            results.append(member.original(*args, **kwargs))
        return tuple(results)

    def hand_out(self, index: int, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """What layer `index` of the segment returned, if it was asked what it was fed with."""
        before = self.ready.pop(index - 1)
        result = self.ready[index]
        expected = _with_hidden(*self.shared, _hidden(before))
        if index == len(self.members) - 1:
            self.ready, self.shared = {}, ((), {})
        if not (_is_same(args, expected[0]) and _is_same(kwargs, expected[1])):
            self.ready = {}
            raise RuntimeError(
                f"layer {self.start + index} was called with other arguments than the segment it lies in: this model "
                "gives its layers different arguments or changes hidden states between them; use a plan per layer "
                "(recompute, recompute/2, ...) in place of segments"
            )
        return result


class _SegmentLayer(_TreatedLayer):
    def __init__(self, layer: nn.Module, segment: _Segment, index: int) -> None:
        super().__init__(layer, Treatment.RECOMPUTE)
        self.segment, self.index = segment, index

    def forward(self, *args: object, **kwargs: object) -> object:
        if not self.is_active:
            return self.original(*args, **kwargs)
        if self.index == 0:
            return self.segment.enter(args, kwargs)
        if self.index in self.segment.ready:
            return self.segment.hand_out(self.index, args, kwargs)
        # The model left the first layer out (layer drop): this one stands alone
        return super().forward(*args, **kwargs)


def _hidden(result: object) -> object:
    """A layer returns its hidden states, or a tuple that begins with them."""
    return result[0] if isinstance(result, tuple | list) else result


def _with_hidden(
    args: tuple[object, ...], kwargs: dict[str, object], hidden: object
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The same call with other hidden states, which are its first argument."""
    if args:
        return (hidden, *args[1:]), kwargs
    first = next(iter(kwargs))
    return args, kwargs | {first: hidden}


def _is_same(a: object, b: object) -> bool:
    """Whether two arguments are one object, or equal plain values."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(map(_is_same, a.values(), b.values()))
    return a is b or (type(a) is type(b) and isinstance(a, bool | int | float | str) and bool(a == b))
