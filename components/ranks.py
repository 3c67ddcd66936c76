"""Ranks of values, for what compares orders and not sizes; scipy has them too, and takes half a second to import."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def count_smaller(values: NDArray[Any]) -> NDArray[np.int64]:
    """How many values are smaller than each: (N,) -> (N,)."""
    return np.searchsorted(np.sort(values), values, side="left").astype(np.int64)
