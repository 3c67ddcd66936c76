"""Which code carries out an Adafactor step: the choice is made once per tensor, from what cannot change by chance.

numba's machine code takes seconds to compile the first time and a third of a second to load later. A thread does that
while the model is still being built and the data read; the first step waits for what is left of it. Stepping in
blocks until it is ready would wait less, but then the last bits of a run would depend on how busy the machine was.
"""

import importlib
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from components.optim.adafactor import blocks as adafactor_blocks
from components.optim.adafactor import grouped as adafactor_grouped
from components.optim.adafactor.update import Rate, Update, apply_plain

PATHS = ("auto", "plain", "blocks", "numba", "grouped")

# Numbers in all parameters from which numba is worth loading: a T5 of .8 million steps in 2 ms instead of 9.
_LEAST_FOR_NUMBA = 1 << 19
# Numbers in a tensor whose second moment is kept whole, below which the plain step is the faster one; matrices of every
# size gain from the blocks' fewer calls.
_LEAST_FOR_BLOCKS = 1 << 16

Path = Callable[[list[Update]], list[Rate]]


def prepare(path: str, params: Iterable[Tensor]) -> bool:
    """Begin to load the native kernels if `path` or the size of `params` asks for them, and return whether it does.

    Raises:
        ValueError: If `path` is "numba" and numba cannot be imported.
    """
    if path == "numba":
        if load_native() is None:
            raise ValueError('Adafactor: path="numba" needs a working numba: pip install numba, or path="auto"')
        return True
    size = sum(param.numel() for param in params if param.device.type == "cpu" and param.dtype == torch.float32)
    if path != "auto" or size < _LEAST_FOR_NUMBA:
        return False
    _loader().start()
    return True


@cache
def load_native() -> ModuleType | None:
    """Return the module of native kernels, compiled; None where numba is missing or does not work."""
    try:
        return importlib.import_module("components.optim.adafactor.native")
    except Exception:  # whatever a broken numba, llvmlite or pairing with NumPy raises; the other paths need none
        return None


def apply_updates(updates: Sequence[Update], path: str, is_native: bool) -> list[Rate]:
    """Carry out `updates` by `path`, each that it does not support by the plain one, and return their rates."""
    if is_native:
        _loader().wait()
    chosen: dict[Path, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        chosen[_choose(update, path, is_native)].append(index)
    rates: list[Rate] = [0.0] * len(updates)
    for apply, indices in chosen.items():
        for index, rate in zip(indices, apply([updates[index] for index in indices]), strict=True):
            rates[index] = rate
    return rates


def is_sharded(param: Tensor) -> bool:
    # Only a DTensor has placements; to ask its class would import torch.distributed.tensor, which costs .3 s.
    return hasattr(param, "placements")


def _choose(update: Update, path: str, is_native: bool) -> Path:
    if is_sharded(update.param):
        from components.optim.adafactor.sharded import apply_sharded

        return apply_sharded
    native = load_native() if is_native else None
    if native is not None and path in ("auto", "numba") and native.is_supported(update):
        apply: Path = native.apply_native
        return apply
    device = update.param.device.type
    if (path == "grouped" or (path == "auto" and device == "cuda")) and adafactor_grouped.is_supported(update):
        return adafactor_grouped.apply_grouped
    gains = update.shape is not None or update.param.numel() >= _LEAST_FOR_BLOCKS
    if path in ("auto", "numba", "blocks") and gains and adafactor_blocks.is_supported(update):
        return adafactor_blocks.apply_in_blocks
    return apply_plain


class _Loader:
    """Loads the kernels in a thread. A fork waits for it: no child shall inherit a lock held by a thread it lacks."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=load_native, name="adafactor-compile", daemon=True)
        self._lock = threading.Lock()
        os.register_at_fork(before=self.wait)

    def start(self) -> None:
        with self._lock:
            if self._thread.ident is None:
                self._thread.start()

    def wait(self) -> None:
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()


@cache
def _loader() -> _Loader:
    return _Loader()
