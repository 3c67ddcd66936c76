"""Dropping activations that can be rebuilt from others which are kept anyway.

A checkpoint runs a layer twice to get at what it dropped. But most of what a layer saves follows from something else
it saves by one cheap operation: a norm's result (which the next products save) from the norm's input (which the norm
saves), the feed-forward's activation from its argument. Here each such operation notes how its result came about, a
saved-tensor hook drops the result, and the backward pass repeats that one operation. Nothing else runs twice, no random
number is drawn twice and there is no second graph. Dropout masks, which take up to four bytes an element, become bits.

Gradients are those without a plan to the bit: the same kernels run on the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

# Operations that save an argument from which their result follows cheaply. Not those that save their result (relu,
# tanh, softmax): there is nothing to win.
Operation = Callable[..., Any]

CHEAP: frozenset[object] = frozenset(
    {
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
BATCH_NORM_ARGUMENTS = 8  # as torch's own modules pass them, by position
SMALLEST = 2048  # elements; below, the note costs more than the memory is worth
WIDENING = 2  # times as many features out as in


class Products(Enum):
    """Which linear products are repeated; each costs its share of the forward pass."""

    NONE = 0
    WIDENING = 1
    ALL = 2


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


def _taken(argument: object) -> object:
    return argument.take() if isinstance(argument, Kept | _View) else argument


def _autocast_settings(device: str) -> Callable[[], AbstractContextManager[object]]:
    if not torch.is_autocast_enabled(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, cache_enabled=False)


# -- masks -----------------------------------------------------------------------------------------------------------


class _Bits:
    """A tensor of two values, one of them zero, one bit an element; exact, or not made (`build_bits`)."""

    def __init__(self, is_set: Tensor, value: Tensor | None) -> None:
        self.shape, self.value, self.device = is_set.shape, value, is_set.device
        flat = is_set.reshape(-1).view(torch.uint8)
        padded = functional.pad(flat, (0, -len(flat) % 8))
        self.bits = _gathered(padded.view(torch.int64))

    def unpack(self) -> Tensor:
        count = self.shape.numel()
        lanes = _byte_table(self.device).index_select(0, self.bits.int())  # (N / 8,) int64, a byte for each bit
        is_set = lanes.view(torch.uint8)[:count].view(self.shape)
        return is_set.bool() if self.value is None else is_set * self.value


def _gathered(lanes: Tensor) -> Tensor:
    """Eight bytes of 0 or 1 as one byte: the product moves byte i's bit to bit 56 + i."""
    return (lanes * 0x0102040810204080 >> 56).to(torch.uint8)


_TABLES: dict[torch.device, Tensor] = {}


def _byte_table(device: torch.device) -> Tensor:
    """For each byte that `_gathered` yields, the eight bytes it came from."""
    if device not in _TABLES:
        flags = (torch.arange(256)[:, None] >> torch.arange(8)) & 1  # (256, 8)
        lanes = flags.to(torch.uint8).view(torch.int64).squeeze(1)  # (256,)
        order = _gathered(lanes).long()
        _TABLES[device] = torch.empty_like(lanes).index_copy_(0, order, lanes).to(device)
    return _TABLES[device]


def build_bits(tensor: Tensor) -> _Bits | None:
    """`tensor` as bits: a bool tensor, or one on the CPU of zeros and one other value, as dropout draws there."""
    if tensor.numel() < SMALLEST or not tensor.is_contiguous():
        return None
    if tensor.dtype == torch.bool:
        return _Bits(tensor, None)
    if tensor.device.type != "cpu" or not tensor.is_floating_point():
        return None
    # A few elements tell a mask from other tensors; then all are held against it
    head = tensor.view(-1)[:64]
    value = head.max()
    if not bool(((head == 0) | (head == value)).all()) or not bool(value > 0):
        return None
    is_set = tensor == value
    return _Bits(is_set, value) if torch.equal(is_set * value, tensor) else None


# -- one call of a layer ---------------------------------------------------------------------------------------------


# How results came about that may leave their layer: the next one saves them
_CROSSING = WeakTensorKeyDictionary()


class _Notes(TorchFunctionMode):
    """Notes, while a layer runs, how results came about that can be rebuilt; its `pack` drops them."""

    def __init__(self, products: Products, arguments: Sequence[object]) -> None:
        super().__init__()
        self.products = products
        # By address of the storage; the weak references keep the addresses from being given away
        self.by_storage: dict[int, tuple[StorageWeakRef, _Rebuilt]] = {}
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
        result = func(*args, **kwargs)
        if func in CHEAP:
            self.note(func, args, kwargs, result)
        elif func is functional.batch_norm and len(args) == BATCH_NORM_ARGUMENTS and args[5]:
            # In training the running statistics are written only
            self.note(func, (args[0], None, None, *args[3:]), kwargs, result)
        return result

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
        if self.products is Products.ALL or (self.products is Products.WIDENING and is_wide):
            self.note(product, (x, *rest), kwargs, result)
        return result

    def note(self, operation: Operation, args: Sequence[object], kwargs: Mapping[str, object], result: Tensor) -> None:
        if result.numel() < SMALLEST or not result.requires_grad or _has_storage_of(result, args):
            return
        sources = [self.source(argument) for argument in args]
        named = {name: self.source(value) for name, value in kwargs.items()}
        rebuilt = _Rebuilt(operation, sources, named, result)
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

    def find(self, tensor: Tensor) -> _Rebuilt | None:
        """What `tensor` is, or is a view of; None where it was changed in place since."""
        _, found = self.by_storage.get(tensor.untyped_storage()._cdata, (None, None))
        return found if found is not None and found.version == tensor._version else None

    def pack(self, tensor: Tensor) -> Kept | _View | _Bits:
        if tensor.numel() < SMALLEST or isinstance(tensor, nn.Parameter):
            return Kept(tensor)
        found = self.find(tensor)
        if found is not None:
            found.num_saves += 1
            found.num_waiting += 1
            return _View(found, tensor)
        if tensor.requires_grad or tensor.untyped_storage()._cdata in self.given:
            return Kept(tensor)
        return build_bits(tensor) or Kept(tensor)


def _has_storage_of(result: Tensor, args: Sequence[object]) -> bool:
    """Whether an operation worked in place."""
    storage = result.untyped_storage()._cdata
    return any(isinstance(argument, Tensor) and argument.untyped_storage()._cdata == storage for argument in args)


def _unpack(packed: Kept | _View | _Bits) -> Tensor:
    return packed.take() if isinstance(packed, Kept) else packed.unpack()


def rebuild(
    forward: Callable[..., object],
    modules: Sequence[nn.Module],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    *,
    products: Products,
) -> object:
    """Run a layer that saves only what cannot be rebuilt; see `Treatment.REBUILD`."""
    if torch.compiler.is_compiling():
        return forward(*args, **kwargs)
    notes = _Notes(products, (*args, *kwargs.values()))
    with saved_tensors_hooks(notes.pack, _unpack), notes:
        return forward(*args, **kwargs)
