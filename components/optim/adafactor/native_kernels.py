"""Adafactor's steps as machine code for float32 on a CPU, compiled by numba: two walks over each gradient.

The row factor R_i is final as soon as row i has been read, so one walk collects c_j = sum_i g_ij^2 and
w_j = sum_i g_ij^2 / R_i beside the squares of the parameter. Then sum u^2 = mean(R) * sum_j w_j / C_j is exact and the
clip factor known before any update exists; the second walk is p_ij -= f_i * g_ij * C_j^-1/2, last blocks first, which
the cache still holds. Sums leave float32 after 64 rows, added by eights, or 4,096 columns at the latest.

Importing this module compiles it, ten seconds the first time and a third of a second from numba's cache afterwards.
`adafactor_numba` hands them tensors and threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Addresses = tuple[int, int, int, int, int]
Options = tuple[float, float, float, float, float, float, float, float]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Numbers in a block: with its parameters it fits a second-level cache of 2 MB.
BLOCK = 1 << 18
# Numbers in a stretch of rows that one walk reads twice, and its most rows, for which columns' sums stay in float32.
_STRETCH = 1 << 14
_STRETCH_ROWS = 64
_CHUNK = 4096

_SUMS = frozenset({"reassoc", "contract", "nsz"})  # lets sums run in vector registers; NaN and infinity stay exact
_EXACT = frozenset({"contract"})  # reassociated, p - (u + a p) could become (1 - a) p - u, which drifts

_F = np.float32
# Its own types differ between versions and leave these out.
_njit: Any = numba.njit
_at: Any = getattr(numba, "carray")  # noqa: B009
_types: Any = numba.types


def _compiled(signature: str | None, flags: frozenset[str]) -> Callable[[Kernel], Kernel]:
    """Compile at once for `signature`; without one, where a kernel uses it."""

    def decorate(function: Kernel) -> Kernel:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(flags)}
        if signature is None:
            return cast(Kernel, _njit(**options)(function))
        try:
            return cast(Kernel, _njit(signature, cache=True, **options)(function))
        except (RuntimeError, OSError):  # no folder that can be written to; every process compiles for itself
            return cast(Kernel, _njit(signature, **options)(function))

    return decorate


@_compiled(None, _SUMS)
def _chunk_squares(x: Array) -> float:
    total = _F(0)
    for j in range(x.shape[0]):
        total += x[j] * x[j]
    return float(total)


@_compiled(None, _SUMS)
def _sum_squares(x: Array) -> float:
    total = 0.0
    for start in range(0, x.shape[0], _CHUNK):
        total += _chunk_squares(x[start : start + _CHUNK])
    return total


@_compiled(None, _SUMS)
def _add_eight(g: Array, m: int, inverse: Array, sums: Array) -> None:
    """Add eight rows, one after the other in `g`, to both halves of `sums`.

    Rows are told apart by offsets alone: of separate arrays the compiler would have to ask whether they overlap, and
    gives up on vectors where there are so many.
    """
    v0, v1, v2, v3 = inverse[0], inverse[1], inverse[2], inverse[3]
    v4, v5, v6, v7 = inverse[4], inverse[5], inverse[6], inverse[7]
    for j in range(m):
        q0, q1 = g[j] * g[j], g[j + m] * g[j + m]
        q2, q3 = g[j + 2 * m] * g[j + 2 * m], g[j + 3 * m] * g[j + 3 * m]
        q4, q5 = g[j + 4 * m] * g[j + 4 * m], g[j + 5 * m] * g[j + 5 * m]
        q6, q7 = g[j + 6 * m] * g[j + 6 * m], g[j + 7 * m] * g[j + 7 * m]
        sums[j] += ((q0 + q1) + (q2 + q3)) + ((q4 + q5) + (q6 + q7))
        sums[j + m] += ((q0 * v0 + q1 * v1) + (q2 * v2 + q3 * v3)) + ((q4 * v4 + q5 * v5) + (q6 * v6 + q7 * v7))


@_compiled(None, _SUMS)
def _add_one(g: Array, m: int, inverse: float, sums: Array) -> None:
    for j in range(m):
        square = g[j] * g[j]
        sums[j] += square
        sums[j + m] += square * inverse


@_compiled(None, _SUMS)
def _empty_into(sums: Array, m: int, c: Array, w: Array) -> None:
    for j in range(m):
        c[j] += np.float64(sums[j])
        w[j] += np.float64(sums[j + m])
        sums[j] = sums[j + m] = _F(0)


_M, _V, _D = "float32[:, ::1]", "float32[::1]", "float64[::1]"
_O = "UniTuple(float64, 8)"


@_compiled(f"float64({_M}, {_M}, {_V}, {_O}, {_D}, {_D})", _SUMS)
def read_rows(p: Array, g: Array, rows: Array, options: Options, c: Array, w: Array) -> float:
    """Advance `rows` (n,), add these n rows to the sums c and w (M,), and return the sum of squares of `p`.

    Rows are walked over in stretches of 64 KB, twice while the cache holds them: memory is read in long runs, as its
    prefetcher likes, which halves the time beside alternating row by row between `g` and `p`.
    """
    _, eps, _, weight, _, _, _, is_scaled = options
    n, m = g.shape
    flat = g.reshape(-1)
    inverse, sums = np.empty(8, np.float32), np.zeros(2 * m, np.float32)
    stretch = min(_STRETCH_ROWS, max(8, _STRETCH // m // 8 * 8))
    for start in range(0, n, stretch):
        end = min(n, start + stretch)
        for i in range(start, end):
            rows[i] = _F(rows[i] + weight * (_sum_squares(g[i]) / m + eps - rows[i]))
        eights = end - (end - start) % 8
        for i in range(start, eights, 8):
            for k in range(8):
                inverse[k] = _F(1) / rows[i + k]
            _add_eight(flat[i * m : (i + 8) * m], m, inverse, sums)
        for i in range(eights, end):
            _add_one(g[i], m, _F(1) / rows[i], sums)
        _empty_into(sums, m, c, w)
    total = 0.0
    if is_scaled != 0:
        total = _sum_squares(p.reshape(-1))
    return total


@_compiled(f"float64({_V}, {_V}, {_O}, {_D}, {_D})", _EXACT)
def finish_columns(rows: Array, columns: Array, options: Options, c: Array, w: Array) -> float:
    """Advance `columns` (M,) by the sums over all N rows and return the sum of squares of the unclipped update."""
    _, eps, _, weight, _, _, _, _ = options
    total, mean = 0.0, 0.0
    for j in range(columns.shape[0]):
        columns[j] = _F(columns[j] + weight * (c[j] / rows.shape[0] + eps - columns[j]))
        total += w[j] / columns[j]
    for i in range(rows.shape[0]):
        mean += rows[i] / rows.shape[0]
    return total * mean


@_compiled(f"UniTuple(float64, 2)(float64, float64, float64, {_O})", _EXACT)
def rate_and_scale(param_squares: float, update_squares: float, count: float, options: Options) -> tuple[float, float]:
    """Return alpha_t and alpha_t divided by max(1, RMS(update) / d); comparisons are such that NaN stays NaN."""
    rate, _, least_scale, _, threshold, _, _, is_scaled = options
    if is_scaled != 0:
        scale = np.sqrt(param_squares / count)
        rate *= least_scale if scale < least_scale else scale
    excess = np.sqrt(update_squares / count) / threshold
    return rate, (rate if excess <= 1 else rate / excess)


@_compiled(None, _EXACT)
def _write_row(p: Array, g: Array, column_factor: Array, factor: float) -> None:
    for j in range(p.shape[0]):
        p[j] -= g[j] * column_factor[j] * factor


@_compiled(None, _EXACT)
def _write_row_decayed(p: Array, g: Array, column_factor: Array, factor: float, decay: float) -> None:
    for j in range(p.shape[0]):
        p[j] -= g[j] * column_factor[j] * factor + decay * p[j]


@_compiled(None, _EXACT)
def _write_row_averaged(p: Array, g: Array, m: Array, column_factor: Array, numbers: Array) -> None:
    factor, beta1, rest, decay = numbers[0], numbers[1], numbers[2], numbers[3]
    for j in range(p.shape[0]):
        m[j] = beta1 * m[j] + rest * (g[j] * column_factor[j] * factor)
        p[j] -= m[j] + decay * p[j]


@_compiled(f"void({_M}, {_M}, {_M}, {_V}, {_V}, float64, float64, float64, {_O})", _EXACT)
def write_rows(
    p: Array,
    g: Array,
    m: Array,
    rows: Array,
    column_factor: Array,
    mean: float,
    rate: float,
    scale: float,
    options: Options,
) -> None:
    """Subtract the clipped update of these rows; `mean` is that of all rows' averages."""
    _, _, _, _, _, beta1, weight_decay, _ = options
    numbers = np.empty(4, np.float32)
    numbers[1], numbers[2], numbers[3] = beta1, 1 - beta1, weight_decay * rate
    for i in range(g.shape[0]):
        numbers[0] = scale * np.sqrt(mean / rows[i])
        if beta1 >= 0:
            _write_row_averaged(p[i], g[i], m[i], column_factor, numbers)
        elif weight_decay != 0:
            _write_row_decayed(p[i], g[i], column_factor, numbers[0], numbers[3])
        else:
            _write_row(p[i], g[i], column_factor, numbers[0])


@_compiled(f"float64({_V}, {_V}, {_V})", _EXACT)
def prepare_factors(rows: Array, columns: Array, column_factor: Array) -> float:
    """Set `column_factor` to C^-1/2 and return the mean of `rows`, summed as in `finish_columns`."""
    mean = 0.0
    for j in range(columns.shape[0]):
        column_factor[j] = 1 / np.sqrt(np.float64(columns[j]))
    for i in range(rows.shape[0]):
        mean += rows[i] / rows.shape[0]
    return mean


@_compiled(None, _EXACT)
def _update_matrices(p: Array, g: Array, m: Array, rows: Array, columns: Array, options: Options) -> float:
    """Carry out the step of B matrices (B, N, M) that are clipped together, and return the rate."""
    count, num_rows, width = g.shape
    c, w, column_factor = np.empty(width), np.empty(width), np.empty(width, np.float32)
    block = max(1, BLOCK // max(1, width))
    param_squares, update_squares = 0.0, 0.0
    for b in range(count):
        c[:] = 0.0
        w[:] = 0.0
        for start in range(0, num_rows, block):
            part = slice(start, min(num_rows, start + block))
            param_squares += read_rows(p[b][part], g[b][part], rows[b][part], options, c, w)
        update_squares += finish_columns(rows[b], columns[b], options, c, w)
    rate, scale = rate_and_scale(param_squares, update_squares, float(g.size), options)
    for k in range(count):
        b = count - 1 - k
        mean = prepare_factors(rows[b], columns[b], column_factor)
        momentum = m[b] if m.shape[0] > 0 else p[b]  # without momentum it is not looked at
        # Blocks last to first, for the cache; rows within one upwards, for the prefetcher.
        for last in range(num_rows, 0, -block):
            part = slice(max(0, last - block), last)
            write_rows(p[b][part], g[b][part], momentum[part], rows[b][part], column_factor, mean, rate, scale, options)
    return rate


@_compiled(None, _EXACT)
def _update_whole(p: Array, g: Array, m: Array, moment: Array, options: Options) -> float:
    """Carry out the step of a tensor whose second moment is kept whole, all seen as vectors; return the rate."""
    _, eps, _, weight, _, beta1, weight_decay, is_scaled = options
    update_squares = 0.0
    for j in range(g.shape[0]):
        square = np.float64(g[j] * g[j])
        moment[j] = _F(moment[j] + weight * (square + eps - moment[j]))
        update_squares += square / moment[j]
    param_squares = _sum_squares(p) if is_scaled != 0 else 0.0
    rate, scale = rate_and_scale(param_squares, update_squares, float(g.size), options)
    decay = weight_decay * rate
    for j in range(g.shape[0]):
        change = scale * g[j] / np.sqrt(moment[j])
        if beta1 >= 0:
            m[j] = _F(beta1 * m[j] + (1 - beta1) * change)
            change = np.float64(m[j])
        if decay != 0:
            change += decay * p[j]
        p[j] = _F(p[j] - change)
    return rate


def _cast_address(_, address):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Cast an address to a pointer to float32.

    Addresses take a twentieth of the time that five NumPy arrays take to make and hand over, which for the hundreds
    of small tensors of a model is a tenth of the step.
    """

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return _types.CPointer(_types.float32)(address), generate


_pointer: Any = numba.extending.intrinsic(_cast_address)


@_compiled("float64(UniTuple(int64, 5), UniTuple(int64, 3), UniTuple(float64, 8))", _EXACT)
def update_matrices_at(addresses: Addresses, shape: tuple[int, int, int], options: Options) -> float:
    """Carry out the step of B matrices, given where p, g, m, rows and columns begin; m at 0 is no momentum."""
    p, g, m, rows, columns = addresses
    b, n, width = shape
    momentum = (b, n, width) if m != 0 else (0, 0, 0)
    return _update_matrices(
        _at(_pointer(p), shape),
        _at(_pointer(g), shape),
        _at(_pointer(m), momentum),
        _at(_pointer(rows), (b, n)),
        _at(_pointer(columns), (b, width)),
        options,
    )


@_compiled("float64(UniTuple(int64, 4), int64, UniTuple(float64, 8))", _EXACT)
def update_whole_at(addresses: tuple[int, int, int, int], size: int, options: Options) -> float:
    """Carry out the step of a tensor given where p, g, m and the second moment begin; m at 0 is no momentum."""
    p, g, m, moment = addresses
    return _update_whole(
        _at(_pointer(p), (size,)),
        _at(_pointer(g), (size,)),
        _at(_pointer(m), (size if m != 0 else 0,)),
        _at(_pointer(moment), (size,)),
        options,
    )
