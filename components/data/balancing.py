"""Evening out groups of very different sizes, such as languages, by repeating rows of the smaller ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def balance_rows(groups: Sequence[str], exponent: float, *, seed: int) -> NDArray[np.int64]:
    """Row numbers in which each group's share is proportional to its size to the power `exponent`.

    No row is left out: the largest group stands as it is and the others are repeated, the rows of the last, partial
    repetition drawn by `seed`. 1 changes nothing, 0 makes all groups equally large. mT5 samples its languages so, with
    0.3 (arXiv:2010.11934, section 3.1). Raises ValueError for an exponent outside [0, 1].
    """
    if not 0.0 <= exponent <= 1.0:
        raise ValueError(f"exponent is {exponent}; it must lie between 0 (equal shares) and 1 (shares as they are)")
    generator = np.random.Generator(np.random.PCG64(seed))
    names, members, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    parts = []
    for index in range(len(names)):
        rows = np.flatnonzero(members == index)
        wanted = round(float(sizes.max() ** (1.0 - exponent) * sizes[index] ** exponent))
        copies, rest = divmod(wanted, len(rows))
        parts += [rows] * copies + [generator.choice(rows, rest, replace=False)]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
