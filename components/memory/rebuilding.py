"""Dropping activations that can be rebuilt from others which are kept anyway.

A checkpoint runs a layer twice to get at what it dropped. But most of what a layer saves follows from something else
it saves by one cheap operation: a norm's result (which the next products save) from the norm's input (which the norm
saves), the feed-forward's activation from its argument. Here each such operation notes how its result came about, a
saved-tensor hook drops the result, and the backward pass repeats that one operation. Nothing else runs twice, no random
number is drawn twice and there is no second graph. Dropout masks, which take up to four bytes an element, become bits.

What else may be repeated is a choice (`Again`), from wide products to everything. A layer that ends in a norm can drop
all but the norm's argument and spare the product that made it, which a checkpoint would repeat: a third of its work. Of
operations chained over several layers each runs once.

Gradients are those without a plan to the bit: the same kernels run on the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Flag, auto
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from components.memory.bits import SMALLEST, Bits, build_bits, draw_mask, drop_again

# Operations that save an argument from which their result follows cheaply. Not those that save their result (relu,
# tanh, softmax): there is nothing to win.
Operation = Callable[..., Any]

CHEAP: frozenset[object] = frozenset(
    {
        functional.embedding,
        functional.gelu,
        functional.group_norm,
        functional.hardswish,
        functional.layer_norm,
        functional.mish,
        functional.normalize,
        functional.rms_norm,
        functional.silu,
    }
)
# Operations that save nothing of their arguments: of use only where those can be had again
PASSING: frozenset[object] = frozenset({torch.Tensor.contiguous, torch.Tensor.reshape})
SUMS: frozenset[object] = frozenset({torch.add, torch.Tensor.add, torch.Tensor.__radd__})
# Sums or products whose last argument may be a mask of dropout, drawn by the model itself
MASKING: frozenset[object] = frozenset({torch.addcmul, torch.Tensor.mul})
BATCH_NORM_ARGUMENTS = 8  # as torch's own modules pass them, by position
WIDENING = 2  # times as many features out as in; narrowing where it is the other way round


class Again(Flag):
    """What is repeated besides norms, activations and casts; each product costs its share of the forward pass."""

    NOTHING = 0
    WIDENING = auto()
    """Products of more than they read."""
    LINEAR = auto()
    """All linear products whose result is saved."""
    ATTENTION = auto()
    """Attention kernels that draw no mask."""
    SUMS = auto()
    """Dropout, and sums of what can be had without a narrowing product (the dearest for what it yields)."""
    NARROWING = auto()
    """Sums whose terms need one, too."""


class Kept:
    """A tensor that stays in memory until the backward pass, and must not change.

    Without its graph: a node that saves its own result would otherwise own itself, and never be freed if no backward
    pass came. Hooks also do without autograd's check of versions, so it is made here.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor.detach(), tensor._version

    def take(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {list(self.tensor.shape)} that the backward pass needs was changed in place after "
                "the forward pass; update weights after backward(), and do not write into activations"
            )
        return self.tensor


class _Rebuilt:
    """The result of a noted operation, which can be had again."""

    def __init__(
        self, operation: Operation, args: Sequence[object], kwargs: Mapping[str, object], result: Tensor
    ) -> None:
        self.operation, self.args, self.kwargs = operation, args, kwargs
        self.version, self.autocast = result._version, _autocast_settings(result.device.type)
        self.is_dear = False
        self.num_saves = self.num_waiting = 0
        self.value: Tensor | None = None

    def take(self) -> Tensor:
        """The result, held if some that saved it still wait for it."""
        value = self.value
        if value is None:
            with torch.no_grad(), self.autocast():
                args = [_taken(argument) for argument in self.args]
                value = self.operation(*args, **{name: _taken(given) for name, given in self.kwargs.items()})
        self.value = value if self.num_waiting else None
        return value

    def take_saved(self) -> Tensor:
        """The result, for one of those that saved it."""
        value = self.take()
        self.num_waiting -= 1
        if self.num_waiting == 0:
            self.num_waiting = self.num_saves  # a graph that is kept may be walked again
            self.value = None
        return value


class _View:
    """How a tensor lies in the memory of a rebuilt one."""

    def __init__(self, source: _Rebuilt, tensor: Tensor) -> None:
        self.source, self.shape, self.strides = source, tensor.shape, tensor.stride()
        self.offset = tensor.storage_offset()

    def take(self) -> Tensor:
        return self.source.take().as_strided(self.shape, self.strides, self.offset)

    def unpack(self) -> Tensor:
        return self.source.take_saved().as_strided(self.shape, self.strides, self.offset)


class _Result:
    """What an operation saved of its own result, before it could be noted how that came about."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.packed: Kept | _View = Kept(tensor)

    def unpack(self) -> Tensor:
        return self.packed.take() if isinstance(self.packed, Kept) else self.packed.unpack()


def _taken(argument: object) -> object:
    return argument.take() if isinstance(argument, Kept | _View) else argument


def _autocast_settings(device: str) -> Callable[[], AbstractContextManager[object]]:
    if not torch.is_autocast_enabled(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, cache_enabled=False)


# -- one call of a layer ---------------------------------------------------------------------------------------------


# How results came about that may leave their layer: the next one saves them
_CROSSING = WeakTensorKeyDictionary()


class _Notes(TorchFunctionMode):
    """Notes, while a layer runs, how results came about that can be rebuilt; its `pack` drops them."""

    def __init__(self, again: Again, arguments: Sequence[object]) -> None:
        super().__init__()
        self.again = again
        # By address of the storage; the weak references keep the addresses from being given away
        self.by_storage: dict[int, tuple[StorageWeakRef, _Rebuilt]] = {}
        self.masks: dict[int, tuple[StorageWeakRef, Bits]] = {}
        self.newest_bits: Bits | None = None
        self.unsettled: list[_Result] | None = None
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        for tensor in tensors:
            crossing = _CROSSING.get(tensor)  # type: ignore[no-untyped-call]
            if crossing is not None:
                self.enter(tensor, crossing)
        # Masks given to every layer are kept once, as they are
        self.given = {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_function__(
        self,
        func: Operation,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is functional.linear and isinstance(args[0], Tensor):
            return self.linear(args[0], args[1:], kwargs)
        if func is functional.dropout and isinstance(args[0], Tensor):
            return self.dropout(args[0], *args[1:], **kwargs)  # type: ignore[arg-type]
        if func is functional.scaled_dot_product_attention:
            return self.attention(args, kwargs)
        if func in MASKING and Again.SUMS in self.again and not kwargs:
            return self.masked(func, args)
        result = func(*args, **kwargs)
        if func in CHEAP:
            self.note(func, args, kwargs, result)
        elif func is functional.batch_norm and len(args) == BATCH_NORM_ARGUMENTS and args[5]:
            # In training the running statistics are written only
            self.note(func, (args[0], None, None, *args[3:]), kwargs, result)
        elif func in PASSING:
            if (source := self.find(args[0])) is not None:
                self.note(func, args, kwargs, result, is_dear=source.is_dear)
        elif func in SUMS and Again.SUMS in self.again:
            self.sum(func, args, kwargs, result)
        return result

    # -- operations --------------------------------------------------------------------------------------------------

    def linear(self, x: Tensor, rest: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor:
        kind = x.device.type
        # What autocast would do within the product, done where it can be noted
        if torch.is_autocast_enabled(kind) and x.dtype == torch.float32 and self.find(x) is not None:
            narrow = x.to(torch.get_autocast_dtype(kind))
            self.note(torch.Tensor.to, (x, narrow.dtype), {}, narrow)
            x = narrow
        product: Operation = functional.linear
        result: Tensor = product(x, *rest, **kwargs)
        is_wide = result.shape[-1] >= WIDENING * x.shape[-1]
        if Again.LINEAR in self.again or (Again.WIDENING in self.again and is_wide):
            is_dear = x.shape[-1] >= WIDENING * result.shape[-1]
            self.note(product, (x, *rest), kwargs, result, is_dear=is_dear)
        return result

    def attention(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor:
        """The kernels save their result and a normaliser; the first can be had again."""
        kernel: Operation = functional.scaled_dot_product_attention
        if Again.ATTENTION not in self.again or _draws(*args, **kwargs):
            result: Tensor = kernel(*args, **kwargs)
            return result
        self.unsettled = []
        result = kernel(*args, **kwargs)
        self.note(kernel, args, kwargs, result)
        found = self.find(result)
        for saved in self.unsettled:
            if found is not None and found is self.find(saved.tensor):
                found.num_saves, found.num_waiting = found.num_saves + 1, found.num_waiting + 1
                saved.packed = _View(found, saved.tensor)
            del saved.tensor
        self.unsettled = None
        return result

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """The same kernels and random numbers as torch's; the mask becomes bits at once."""
        draws = training and 0 < p < 1 and not inplace
        if not draws or input.numel() < SMALLEST or not input.is_contiguous() or not input.requires_grad:
            return functional.dropout(input, p, training, inplace)
        if input.device.type == "cpu":
            mask, bits = draw_mask(input, p)
            storage = mask.untyped_storage()
            self.masks[storage._cdata] = StorageWeakRef(storage), bits  # type: ignore[no-untyped-call]
            result = input * mask
        else:
            result, _ = torch.native_dropout(input, p, True)  # whose mask `pack` sees
            assert self.newest_bits is not None
            bits = self.newest_bits
        source = self.find(input)
        if source is not None and Again.SUMS in self.again:
            self.note(drop_again, (input, bits, 1 / (1 - p)), {}, result, is_dear=source.is_dear)
        return result

    def masked(self, func: Operation, args: tuple[object, ...]) -> object:
        """Dropout written as a product with a mask, by itself or as part of a sum."""
        mask = args[-1]
        has_bits = isinstance(mask, Tensor) and not mask.requires_grad and mask.is_floating_point()
        bits = build_bits(mask) if has_bits and self.are_at_hand(args[:-1]) else None  # type: ignore[arg-type]
        if bits is None:
            return func(*args)
        storage = mask.untyped_storage()  # type: ignore[attr-defined]
        self.masks[storage._cdata] = StorageWeakRef(storage), bits  # type: ignore[no-untyped-call]
        result = func(*args)
        self.note(partial(_masked_again, func), (*args[:-1], bits), {}, result)
        return result

    def sum(self, func: Operation, args: Sequence[object], kwargs: Mapping[str, object], result: Tensor) -> None:
        if self.are_at_hand(args):
            self.note(func, args, kwargs, result)

    def are_at_hand(self, args: Sequence[object]) -> bool:
        """Whether all tensors are there anyway: given to the layer, weights, or to be had again."""
        for term in (argument for argument in args if isinstance(argument, Tensor)):
            found = self.find(term)
            is_weight = isinstance(term, nn.Parameter) or isinstance(term._base, nn.Parameter)
            if found is None and not is_weight and term.untyped_storage()._cdata not in self.given:
                return False
            if found is not None and found.is_dear and Again.NARROWING not in self.again:
                return False
        return True

    # -- what is noted -----------------------------------------------------------------------------------------------

    def note(
        self,
        operation: Operation,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        result: Tensor,
        *,
        is_dear: bool = False,
    ) -> None:
        if result.numel() < SMALLEST or not result.requires_grad or _has_storage_of(result, args):
            return
        sources = [self.source(argument) for argument in args]
        named = {name: self.source(value) for name, value in kwargs.items()}
        rebuilt = _Rebuilt(operation, sources, named, result)
        rebuilt.is_dear = is_dear
        _CROSSING[result] = rebuilt
        self.enter(result, rebuilt)

    def enter(self, result: Tensor, rebuilt: _Rebuilt) -> None:
        storage = result.untyped_storage()
        self.by_storage[storage._cdata] = (StorageWeakRef(storage), rebuilt)  # type: ignore[no-untyped-call]

    def source(self, argument: object) -> object:
        if not isinstance(argument, Tensor):
            return argument
        found = self.find(argument)
        return Kept(argument) if found is None else _View(found, argument)

    def find(self, tensor: object) -> _Rebuilt | None:
        """What `tensor` is, or is a view of; None where it was changed in place since."""
        if not isinstance(tensor, Tensor):
            return None
        _, found = self.by_storage.get(tensor.untyped_storage()._cdata, (None, None))
        return found if found is not None and found.version == tensor._version else None

    def pack(self, tensor: Tensor) -> Kept | _View | _Result | Bits:
        if tensor.numel() < SMALLEST or isinstance(tensor, nn.Parameter):
            return Kept(tensor)
        found = self.find(tensor)
        if found is not None:
            found.num_saves += 1
            found.num_waiting += 1
            return _View(found, tensor)
        storage = tensor.untyped_storage()._cdata
        if storage in self.masks:
            return self.masks[storage][1]
        if self.unsettled is not None:
            self.unsettled.append(_Result(tensor))
            return self.unsettled[-1]
        if tensor.requires_grad or storage in self.given:
            return Kept(tensor)
        self.newest_bits = build_bits(tensor)
        return self.newest_bits or Kept(tensor)


def _masked_again(func: Operation, *args: Any) -> Tensor:  # noqa: ANN401 - whatever the operation takes
    result: Tensor = func(*args[:-1], args[-1].unpack())
    return result


def _draws(*args: object, **kwargs: object) -> bool:
    """Whether a call of attention has dropout, its fifth argument."""
    return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))


def _has_storage_of(result: Tensor, args: Sequence[object]) -> bool:
    """Whether an operation worked in place."""
    storage = result.untyped_storage()._cdata
    return any(isinstance(argument, Tensor) and argument.untyped_storage()._cdata == storage for argument in args)


def _unpack(packed: Kept | _View | _Result | Bits) -> Tensor:
    return packed.take() if isinstance(packed, Kept) else packed.unpack()


def rebuild(
    forward: Callable[..., object],
    modules: Sequence[nn.Module],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    *,
    again: Again,
) -> object:
    """Run a layer that saves only what cannot be rebuilt; see `Treatment.REBUILD`."""
    if torch.compiler.is_compiling():
        return forward(*args, **kwargs)
    notes = _Notes(again, (*args, *kwargs.values()))
    with saved_tensors_hooks(notes.pack, _unpack), notes:
        return forward(*args, **kwargs)
