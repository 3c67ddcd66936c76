"""How one call of a layer is treated: recomputed, recomputed in part, or saved in the host's memory.

Each function has the form `treat(forward, modules, args, kwargs) -> result`, in which `modules` are the modules that
`forward` runs. All of them stand on non-reentrant checkpoints or saved-tensor hooks, which autocast, DDP and gradient
accumulation need no account of.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from components.memory.plans import Treatment
from components.memory.rebuilding import Again, Kept, rebuild

Forward = Callable[..., Any]
Policy = Callable[..., CheckpointPolicy]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class _Recomputation(AbstractContextManager[None]):
    """Around a recomputation: running statistics, which the forward pass has updated, are left as they are.

    The norms work on copies, so that the recomputed graph has the same tensors as the first one (setting
    `track_running_stats` off would drop some). `inner` is the recompute context of a selective policy.
    """

    def __init__(self, modules: Sequence[nn.Module], inner: AbstractContextManager[Any] | None = None) -> None:
        self.modules, self.inner = modules, inner
        self.swapped: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        # Before the inner context, which would take the copies for operations of the layer
        for module in (part for root in self.modules for part in root.modules()):
            if isinstance(module, _NormBase) and module.training and module.track_running_stats:
                self.swap(module)
        if self.inner is not None:
            self.inner.__enter__()

    def swap(self, module: nn.Module) -> None:
        for name in STATISTICS:
            buffer = module._buffers.get(name)
            if buffer is not None:
                self.swapped.append((module, name, buffer))
                module._buffers[name] = buffer.clone()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.inner is not None:
                self.inner.__exit__(kind, error, trace)
        finally:
            while self.swapped:
                module, name, buffer = self.swapped.pop()
                module._buffers[name] = buffer


def recompute(
    forward: Forward,
    modules: Sequence[nn.Module],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    policy: Policy | None = None,
) -> object:
    """Keep the arguments, and what `policy` says, and run `forward` again in the backward pass."""

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        if policy is None:
            return nullcontext(), _Recomputation(modules)
        first, again = create_selective_checkpoint_contexts(policy)  # type: ignore[no-untyped-call]
        return first, _Recomputation(modules, again)

    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": True}
    if not torch.compiler.is_compiling():
        settings["context_fn"] = contexts
    elif policy is not None:
        # A compiler applies updates of buffers once, whatever it recomputes
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    # Bound beforehand, so that no argument of a layer can meet one of checkpoint's own names
    return checkpoint(partial(forward, **kwargs), *args, **settings)


# -- selective by operation ------------------------------------------------------------------------------------------


def _operations(*names: str) -> frozenset[OpOverload]:
    """Those of aten's operations that this version of torch has."""
    found = [getattr(torch.ops.aten, name, None) for name in names]
    return frozenset(getattr(packet, form) for packet in found if packet is not None for form in packet.overloads())


ATTENTION = _operations(
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_flash_attention_forward",
    "_efficient_attention_forward",
)
PRODUCTS = _operations(
    "mm", "addmm", "bmm", "baddbmm", "linear", "_scaled_mm", "_grouped_mm", "convolution", "_convolution"
)


def _has_dropout(operation: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    names = [argument.name for argument in operation._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return bool(given.get("dropout_p", 0.0))


def _save_attention(context: object, operation: OpOverload, *args: object, **kwargs: object) -> CheckpointPolicy:
    # A result taken from the store draws no random numbers, and every later mask would be another one
    if operation in ATTENTION and not _has_dropout(operation, args, kwargs):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _save_matmuls(context: object, operation: OpOverload, *args: object, **kwargs: object) -> CheckpointPolicy:
    if operation in PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return _save_attention(context, operation, *args, **kwargs)


# -- in the host's memory --------------------------------------------------------------------------------------------


class _Offloaded:
    """A saved tensor in the host's memory, page-locked so that both copies run beside the host.

    It comes back with the strides it had: attention chooses its kernel by them, and a layer that runs again has to save
    what it saved at first.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.device, self.shape, self.strides = tensor.device, tensor.shape, tensor.stride()
        pinned = tensor.device.type == "cuda"
        # An expanded dimension lies in memory once
        sizes = [size if stride or not size else 1 for size, stride in zip(self.shape, self.strides, strict=True)]
        self.once = torch.Size(sizes)
        self.has_gaps = _has_gaps(self.once, self.strides)
        source = tensor.as_strided(self.once, self.strides) if self.has_gaps else self.memory_of(tensor)
        copy = torch.empty_like(source, device="cpu", pin_memory=pinned).copy_(source, non_blocking=pinned)
        self.host = copy if self.has_gaps else copy.as_strided(self.shape, self.strides)

    def memory_of(self, tensor: Tensor) -> Tensor:
        """All from the first element to the last, flat."""
        return tensor.as_strided((_extent(self.once, self.strides),), (1,))

    def fetch(self) -> Tensor:
        if self.has_gaps:  # what lies between the elements stayed behind
            memory = torch.empty_strided(self.once, self.strides, dtype=self.host.dtype, device=self.device)
            memory.copy_(self.host, non_blocking=True)
        else:
            memory = self.memory_of(self.host).to(self.device, non_blocking=True)
        return memory.as_strided(self.shape, self.strides)


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements in memory from the first to the last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if all(shape) else 0


def _has_gaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether memory between the elements is no element's; not asked of elements that may share memory."""
    extent = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride < extent:
            return False
        extent += (size - 1) * stride
    return all(shape) and extent > torch.Size(shape).numel()


class _Offloading:
    """The hooks of one layer's call; a tensor that several operations save is copied once."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        own = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        self.stays = {tensor.untyped_storage()._cdata for tensor in own}
        self.copies: dict[tuple[Any, ...], _Offloaded] = {}

    def pack(self, tensor: Tensor) -> Kept | _Offloaded:
        storage = tensor.untyped_storage()
        # An expanded tensor would grow by the copy
        is_view_of_less = tensor.numel() * tensor.element_size() > storage.nbytes()
        if tensor.device.type == "cpu" or is_view_of_less or storage._cdata in self.stays:
            return Kept(tensor)
        # The weak reference keeps the storage's address from being given to another tensor
        place = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        key = (place, tensor._version, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in self.copies:
            self.copies[key] = _Offloaded(tensor)
        return self.copies[key]


def _fetch(packed: Kept | _Offloaded) -> Tensor:
    return packed.fetch() if isinstance(packed, _Offloaded) else packed.take()


def offload(
    forward: Forward, modules: Sequence[nn.Module], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """Save for the backward pass in the host's memory; weights stay where they are."""
    if torch.compiler.is_compiling():
        return forward(*args, **kwargs)
    with saved_tensors_hooks(_Offloading(modules).pack, _fetch):
        return forward(*args, **kwargs)


def _keep(
    forward: Forward, modules: Sequence[nn.Module], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    return forward(*args, **kwargs)


def _recompute_offload(
    forward: Forward, modules: Sequence[nn.Module], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    return offload(partial(_recomputed, forward, modules), modules, args, kwargs)


def _recomputed(forward: Forward, modules: Sequence[nn.Module], *args: object, **kwargs: object) -> object:
    return recompute(forward, modules, args, kwargs)


_LINEAR = Again.WIDENING | Again.LINEAR

TREATMENTS: dict[
    Treatment, Callable[[Forward, Sequence[nn.Module], tuple[object, ...], Mapping[str, object]], object]
] = {
    Treatment.KEEP: _keep,
    Treatment.REBUILD: partial(rebuild, again=Again.NOTHING),
    Treatment.REBUILD_ATTENTION: partial(rebuild, again=Again.ATTENTION),
    Treatment.REBUILD_WIDE: partial(rebuild, again=Again.WIDENING),
    Treatment.REBUILD_WIDE_ATTENTION: partial(rebuild, again=Again.WIDENING | Again.ATTENTION),
    Treatment.REBUILD_LINEAR: partial(rebuild, again=_LINEAR),
    Treatment.REBUILD_SUMS: partial(rebuild, again=_LINEAR | Again.ATTENTION | Again.SUMS),
    Treatment.REBUILD_ALL: partial(rebuild, again=_LINEAR | Again.ATTENTION | Again.SUMS | Again.NARROWING),
    Treatment.SAVE_MATMULS: partial(recompute, policy=_save_matmuls),
    Treatment.SAVE_ATTENTION: partial(recompute, policy=_save_attention),
    Treatment.RECOMPUTE: recompute,
    Treatment.OFFLOAD: offload,
    Treatment.RECOMPUTE_OFFLOAD: _recompute_offload,
}
