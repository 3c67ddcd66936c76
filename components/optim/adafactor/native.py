"""Adafactor's steps for float32 on a CPU by numba's machine code: which tensors, in which pieces, on which threads.

The work is cut by the shapes alone and each piece is summed in its own order, so the number of threads cannot show
in the result. Importing this module compiles the kernels or loads them from numba's cache.
"""

import _thread
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Self

import numpy as np
import torch
from torch import Tensor

from components.optim.adafactor.native_kernels import (
    BLOCK,
    Array,
    Options,
    finish_columns,
    prepare_factors,
    rate_and_scale,
    read_rows,
    update_matrices_at,
    update_whole_at,
    write_rows,
)
from components.optim.adafactor.update import Rate, Update, second_moment_shapes

# A tensor of more numbers than this is cut into blocks that threads share; one of fewer is one thread's piece of work.
_LARGEST_PIECE = 1 << 23
# Below this many numbers in all, starting a thread costs more than it brings.
_LEAST_FOR_THREADS = 1 << 18
_PLAIN = (Tensor, torch.nn.Parameter)

Piece = Callable[[], None]


def is_supported(update: Update) -> bool:
    """Whether the kernels can read these tensors: float32 on a CPU, contiguous, no subclass with rules of its own."""
    if type(update.param) not in _PLAIN or type(update.grad) not in _PLAIN or not update.param.is_cpu:
        return False
    sizes = second_moment_shapes(update.param, update.shape)
    for name, value in update.state.items():
        # The kernels are told addresses only: what does not lie there as they expect must not reach them.
        if name in sizes and value.shape != sizes[name]:
            return False
        if name != "step" and isinstance(value, Tensor) and not _is_plain_float32(value):
            return False
    return _is_plain_float32(update.param) and _is_plain_float32(update.grad)


def _is_plain_float32(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()


def apply_native(updates: list[Update]) -> list[Rate]:
    """Carry out `updates`, all supported, on torch's number of threads and return their rates.

    Threads are started for the step and end with it, so that a process forked between steps inherits none.
    """
    rates: list[Rate] = [0.0] * len(updates)
    pieces: list[Piece] = []
    total = sum(update.param.numel() for update in updates)
    with _Crew(torch.get_num_threads() - 1 if total >= _LEAST_FOR_THREADS else 0) as crew:
        for index, update in enumerate(updates):
            if update.shape is not None and len(update.shape) == 2 and update.param.numel() > _LARGEST_PIECE:
                rates[index] = _apply_in_blocks(update, crew.run)
            else:
                pieces.append(partial(_apply_piece, update, rates, index))
        crew.run(pieces)
    return rates


class _Crew:
    """Threads that share work with the caller's own, which does not wait for them to begin.

    `threading.Thread.start` does, and after a backward pass that takes 2.5 ms: OpenMP's threads still spin on the other
    cores.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: SimpleQueue[tuple[Future[None], Piece] | None] = SimpleQueue()
        for _ in range(size):
            _thread.start_new_thread(self._serve, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for _ in range(self._size):
            self._calls.put(None)

    def run(self, pieces: Iterable[Piece]) -> None:
        """Run every piece, each taken by whichever thread is free; raise what one of them raised."""
        waiting, lock = iter(pieces), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    piece = next(waiting, None)
                if piece is None:
                    return
                piece()

        others: list[Future[None]] = [Future() for _ in range(self._size)]
        for other in others:
            self._calls.put((other, work))
        try:
            work()
        finally:
            for other in others:
                if not other.cancel():  # who has not begun by now finds nothing left to do
                    other.result()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            done, work = call
            if not done.set_running_or_notify_cancel():
                continue
            try:
                work()
            except BaseException as error:  # the caller raises it
                done.set_exception(error)
            else:
                done.set_result(None)


def _apply_piece(update: Update, rates: list[Rate], index: int) -> None:
    rates[index] = _apply_factored(update) if update.shape is not None else _apply_whole(update)


def _apply_factored(update: Update) -> float:
    state, shape = update.state, update.shape
    assert shape is not None
    addresses = (
        update.param.data_ptr(),
        update.grad.data_ptr(),
        0 if update.beta1 is None else state["exp_avg"].data_ptr(),
        state["exp_avg_sq_row"].data_ptr(),
        state["exp_avg_sq_col"].data_ptr(),
    )
    batch = update.param.numel() // (shape[-2] * shape[-1])
    return update_matrices_at(addresses, (batch, shape[-2], shape[-1]), _options(update))


def _apply_whole(update: Update) -> float:
    state = update.state
    momentum = 0 if update.beta1 is None else state["exp_avg"].data_ptr()
    addresses = (update.param.data_ptr(), update.grad.data_ptr(), momentum, state["exp_avg_sq"].data_ptr())
    return update_whole_at(addresses, update.param.numel(), _options(update))


def _apply_in_blocks(update: Update, run: Callable[[list[Piece]], None]) -> float:
    """Carry out the step of one large matrix by blocks of rows; 16 bytes per column and block are kept for it."""
    assert update.shape is not None
    num_rows, width = update.shape
    p, g = _array(update.param, update.shape), _array(update.grad, update.shape)
    momentum = update.state.get("exp_avg")
    m = p if momentum is None else _array(momentum, update.shape)
    rows, columns = (_array(update.state[name], (-1,)) for name in ("exp_avg_sq_row", "exp_avg_sq_col"))
    options = _options(update)
    size = max(BLOCK // width, -(-num_rows // 64), 1)
    parts = [slice(start, start + size) for start in range(0, num_rows, size)]
    c, w, squares = np.zeros((len(parts), width)), np.zeros((len(parts), width)), np.empty(len(parts))

    def read(k: int) -> None:
        squares[k] = read_rows(p[parts[k]], g[parts[k]], rows[parts[k]], options, c[k], w[k])

    run([partial(read, k) for k in range(len(parts))])
    update_squares = finish_columns(rows, columns, options, c.sum(axis=0), w.sum(axis=0))
    rate, scale = rate_and_scale(float(squares.sum()), update_squares, float(num_rows * width), options)
    column_factor = np.empty(width, np.float32)
    mean = prepare_factors(rows, columns, column_factor)

    def write(k: int) -> None:
        part = parts[k]
        write_rows(p[part], g[part], m[part], rows[part], column_factor, mean, rate, scale, options)

    run([partial(write, k) for k in reversed(range(len(parts)))])
    return rate


def _array(tensor: Tensor, shape: tuple[int, ...]) -> Array:
    array: Array = tensor.detach().view(shape).numpy()
    return array


def _options(update: Update) -> Options:
    return (
        float(update.rho),
        float(update.eps[0]),
        float(update.eps[1]),
        float(update.weight),
        float(update.clip_threshold),
        -1.0 if update.beta1 is None else float(update.beta1),
        float(update.weight_decay),
        float(update.is_scaled),
    )
