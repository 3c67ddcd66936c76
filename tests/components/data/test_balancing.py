"""Shares of groups, written out."""

from collections import Counter

import pytest

from components.data.balancing import balance_rows

GROUPS = ["uk"] * 100 + ["ru"] * 25 + ["zh"] * 4


@pytest.mark.parametrize(
    ("exponent", "counts"), [(1.0, [100, 25, 4]), (0.5, [100, 50, 20]), (0.0, [100, 100, 100]), (0.3, [100, 66, 38])]
)
def test_shares_follow_the_exponent_and_no_row_is_lost(exponent, counts):
    rows = balance_rows(GROUPS, exponent, seed=0)
    assert [Counter(GROUPS[row] for row in rows)[name] for name in ("uk", "ru", "zh")] == counts
    assert set(rows.tolist()) == set(range(129))
    repeats = Counter(rows.tolist())
    assert max(repeats[row] for row in range(100, 125)) - min(repeats[row] for row in range(100, 125)) <= 1


def test_the_seed_decides_which_rows_stand_once_more():
    assert balance_rows(GROUPS, 0.3, seed=1).tolist() == balance_rows(GROUPS, 0.3, seed=1).tolist()
    assert balance_rows(GROUPS, 0.3, seed=1).tolist() != balance_rows(GROUPS, 0.3, seed=2).tolist()


def test_one_leaves_the_rows_alone():
    assert balance_rows(GROUPS, 1.0, seed=0).tolist() == list(range(129))


def test_an_exponent_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"exponent is 1\.5"):
        balance_rows(GROUPS, 1.5, seed=0)
