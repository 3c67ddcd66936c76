"""Ranks, held to scipy's on values with many ties."""

import numpy as np
import pytest
from scipy.stats import rankdata

from components.ranks import average_ranks, count_smaller


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("num", [1, 2, 500])
def test_ranks_are_scipys(num, decimals):
    values = np.random.default_rng(num).normal(size=num).round(decimals)
    assert (average_ranks(values) == rankdata(values)).all()
    smaller = count_smaller(values)
    assert (smaller == rankdata(values, method="min") - 1).all()
    assert smaller.dtype == np.int64
