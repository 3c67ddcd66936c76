"""Folds: every scheme's promise, that a seed repeats it, and what is said when it cannot be kept."""

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from components.data.folds import FOLD_SCHEMES, assign_folds, fold_hash, train_valid_rows

NUM_ROWS = 203
RNG = np.random.default_rng(0)
LABELS = RNG.choice(["rare", "common", "usual"], NUM_ROWS, p=[0.1, 0.6, 0.3])
GROUPS = np.array([f"g{n}" for n in RNG.integers(0, 40, NUM_ROWS)])
TIMES = RNG.integers(0, 60, NUM_ROWS)


def make_folds(scheme, **changes):
    arguments = {
        "num_rows": NUM_ROWS, "num_folds": 5, "valid_fraction": 0.2, "seed": 7,
        "labels": LABELS, "groups": GROUPS, "times": TIMES,
    }  # fmt: skip
    return assign_folds(scheme=scheme, **{**arguments, **changes})


def sizes(folds):
    return [int(count) for count in np.bincount(folds + 1)]  # of -1, 0, 1, ...


def test_all_schemes_are_in_the_table():
    assert list(FOLD_SCHEMES) == ["holdout", "kfold", "stratified", "group", "stratified_group", "time"]


@pytest.mark.parametrize("scheme", FOLD_SCHEMES)
def test_a_seed_repeats_its_folds(scheme):
    folds = make_folds(scheme)
    assert folds.dtype == np.int64
    assert folds.shape == (NUM_ROWS,)
    np.testing.assert_array_equal(folds, make_folds(scheme))
    assert np.array_equal(folds, make_folds(scheme, seed=8)) == (scheme == "time")


@pytest.mark.parametrize("scheme", ["kfold", "stratified", "group", "stratified_group"])
def test_every_row_is_validated_once_and_trained_on_otherwise(scheme):
    folds = make_folds(scheme)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    for fold in range(5):
        train, valid = train_valid_rows(folds, fold, scheme=scheme)
        assert sorted([*train, *valid]) == list(range(NUM_ROWS))
        assert set(folds[valid].tolist()) == {fold}
        assert train.tolist() == sorted(train)


@pytest.mark.parametrize("scheme", ["kfold", "stratified"])
def test_folds_differ_in_size_by_one_at_most(scheme):
    assert sorted(sizes(make_folds(scheme))) == [0, 40, 40, 41, 41, 41]


def test_kfold_rows_are_drawn_without_regard_to_place():
    folds = make_folds("kfold")
    # Were they dealt in order, five pairs of neighbours would come 40 times each.
    assert max(Counter(pairwise(folds)).values()) < 20


# Hold-out


def test_holdout_keeps_a_share_of_the_rows():
    folds = make_folds("holdout", groups=None, num_folds=1)
    assert sizes(folds) == [162, 41]
    train, valid = train_valid_rows(folds, 0, scheme="holdout")
    assert (set(folds[train].tolist()), set(folds[valid].tolist())) == ({-1}, {0})
    assert sizes(make_folds("holdout", groups=None, valid_fraction=0.001)) == [202, 1]
    assert sizes(make_folds("holdout", groups=None, valid_fraction=0.999)) == [1, 202]


def test_holdout_keeps_groups_whole():
    folds = make_folds("holdout")
    held_out, trained = set(GROUPS[folds == 0]), set(GROUPS[folds == -1])
    assert (len(held_out), len(trained), held_out & trained) == (8, 32, set())


def test_only_the_columns_that_a_scheme_needs_are_looked_at():
    broken = np.full(NUM_ROWS, np.nan)
    np.testing.assert_array_equal(make_folds("kfold", labels=broken, groups=broken, times=broken), make_folds("kfold"))
    np.testing.assert_array_equal(make_folds("holdout", labels=broken, times=broken), make_folds("holdout"))
    np.testing.assert_array_equal(make_folds("group", labels=broken), make_folds("group"))


# Classes and values


@pytest.mark.parametrize("as_numbers", [False, True])
def test_stratified_folds_share_every_class_to_within_one_row(as_numbers):
    labels = np.unique(LABELS, return_inverse=True)[1] if as_numbers else LABELS
    folds = make_folds("stratified", labels=labels)
    np.testing.assert_array_equal(folds, make_folds("stratified"))  # classes are told apart, not measured
    for label in np.unique(labels):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_values_are_stratified_by_bins():
    values = np.random.default_rng(1).exponential(size=1000)
    folds = make_folds("stratified", num_rows=1000, labels=values)
    deciles = np.searchsorted(np.quantile(values, np.arange(0.1, 1, 0.1)), values)
    for decile in range(10):
        assert np.bincount(folds[deciles == decile], minlength=5).tolist() == [20] * 5
    # Floats that repeat share a bin: classes written as floats are as even as classes.
    ones = np.repeat([0.0, 1.0], [900, 100])
    assert np.bincount(make_folds("stratified", num_rows=1000, labels=ones)[900:]).tolist() == [20] * 5
    assert sizes(make_folds("stratified", num_rows=7, labels=np.arange(7.0))) in (
        [0, *row] for row in permutations_of_7()
    )


def permutations_of_7():
    """Five folds of seven rows: two of them have two."""
    return [[2 if fold in pair else 1 for fold in range(5)] for pair in [(a, b) for a in range(5) for b in range(a)]]


def test_several_labels_per_row_are_even_one_by_one():
    rng = np.random.default_rng(2)
    labels = (rng.random((400, 5)) < [0.5, 0.3, 0.2, 0.1, 0.04]).astype(int)
    folds = make_folds("stratified", num_rows=400, labels=labels)
    counts = np.array([labels[folds == fold].sum(axis=0) for fold in range(5)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= [8, 8, 8, 4, 3]).all(), counts
    chance = np.array([labels[make_folds("kfold", num_rows=400) == fold].sum(axis=0) for fold in range(5)])
    assert counts.var(axis=0).sum() < chance.var(axis=0).sum() / 2
    one = labels[:, :1]
    np.testing.assert_array_equal(
        make_folds("stratified", num_rows=400, labels=one), make_folds("stratified", num_rows=400, labels=one[:, 0])
    )


# Groups


@pytest.mark.parametrize("scheme", ["group", "stratified_group"])
def test_groups_stay_together_and_their_names_do_not_matter(scheme):
    folds = make_folds(scheme)
    for group in np.unique(GROUPS):
        assert len(set(folds[group == GROUPS].tolist())) == 1
    assert max(sizes(folds)[1:]) - min(sizes(folds)[1:]) <= 8
    as_series = pd.Series(GROUPS, index=range(NUM_ROWS, 2 * NUM_ROWS))
    np.testing.assert_array_equal(make_folds(scheme, groups=as_series), folds)
    # Another order of the rows is the same division of the groups.
    order = np.random.default_rng(3).permutation(NUM_ROWS)
    moved = make_folds(scheme, groups=GROUPS[order], labels=LABELS[order])
    np.testing.assert_array_equal(moved, folds[order])


def test_group_folds_are_level_though_groups_are_not():
    groups = np.repeat(range(9), [50, 20, 20, 10, 10, 10, 10, 10, 10])
    assert sorted(sizes(make_folds("group", num_rows=150, num_folds=3, groups=groups))) == [0, 50, 50, 50]


@pytest.mark.parametrize("kind", ["classes", "values", "several"])
def test_stratified_groups_are_more_even_than_groups(kind):
    rng = np.random.default_rng(4)
    groups = rng.integers(0, 60, 600)
    propensity = rng.random(60)[groups]  # groups differ much in their classes
    positive = (rng.random(600) < propensity**2).astype(int)
    labels = {"classes": positive, "values": propensity, "several": np.stack([positive, 1 - positive], axis=1)}[kind]
    stratified = make_folds("stratified_group", num_rows=600, groups=groups, labels=labels)
    plain = make_folds("group", num_rows=600, groups=groups)
    measure = propensity if kind == "values" else positive
    spread, chance = (np.std([measure[folds == k].mean() for k in range(5)]) for folds in (stratified, plain))
    # Sixty groups of one value each cannot be dealt as evenly as mixed ones.
    assert spread < (0.7 if kind == "values" else 0.3) * chance
    assert max(sizes(stratified)[1:]) - min(sizes(stratified)[1:]) <= 20


# Time


def test_time_folds_only_learn_from_the_past():
    folds = make_folds("time", num_folds=4)
    assert sorted(set(folds.tolist())) == [-1, 0, 1, 2, 3]
    for fold in range(4):
        train, valid = train_valid_rows(folds, fold, scheme="time")
        assert TIMES[train].max() < TIMES[valid].min()
        assert len(train) == (folds < fold).sum() > 0
    assert max(sizes(folds)) - min(sizes(folds)) <= 8  # equal times share a block
    np.testing.assert_array_equal(folds, make_folds("time", num_folds=4, labels=None, groups=None))


def test_one_time_fold_is_the_latest_share():
    folds = make_folds("time", num_folds=1, num_rows=10, times=[3, 1, 4, 10, 5, 9, 2, 6, 8, 7], valid_fraction=0.3)
    assert folds.tolist() == [-1, -1, -1, 0, -1, 0, -1, -1, 0, -1]
    assert make_folds("time", num_folds=1, num_rows=2, times=[1, 2], valid_fraction=0.1).tolist() == [-1, 0]


@pytest.mark.parametrize(
    "times",
    [
        [20240109, 20240110, 20231231, 20240201],
        ["9", "10", "1.5", "11"],
        ["2024-01-09", "2024-01-10", "2023-12-31T23:59:59", "2024-02"],
        pd.to_datetime(pd.Series(["2024-01-09", "2024-01-10", "2023-12-31", "2024-02-01"])),
        pd.Series(["2024-01-09", "2024-01-10", "2023-12-31", "2024-02-01"]),
        np.array([*pd.to_datetime(["2024-01-09", "2024-01-10", "2023-12-31", "2024-02-01"])], dtype=object),
    ],
)
def test_times_are_numbers_datetimes_or_iso_texts(times):
    assert make_folds("time", num_rows=4, num_folds=3, times=times).tolist() == [0, 1, -1, 2]


# What was made, and what users get wrong


def test_hash_is_of_the_pairs_and_not_of_their_order():
    digest = fold_hash(["a", "b", "c"], np.array([0, 1, -1]))
    assert digest == hashlib.sha256(b'["a", 0]\n["b", 1]\n["c", -1]').hexdigest()
    assert digest == fold_hash(["c", "a", "b"], [-1, 0, 1])
    assert len({digest, fold_hash(["a", "b", "c"], [0, 1, 0]), fold_hash(["a", "b", "d"], [0, 1, -1])}) == 3
    assert fold_hash([1, 2], [0, 1]) == fold_hash(["1", "2"], [0, 1])
    with pytest.raises(ValueError, match="id 'a' stands in more than one row"):
        fold_hash(["a", "b", "a"], [0, 1, 1])
    with pytest.raises(ValueError, match="3 ids but 2 folds"):
        fold_hash(["a", "b", "c"], [0, 1])


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_does_not_exist(fold):
    with pytest.raises(ValueError, match=rf"no fold {fold}; the file has 0, 1, 2, 3, 4"):
        train_valid_rows(make_folds("kfold"), fold, scheme="kfold")


def changed(column, row, value):
    cells = np.asarray(column).tolist()
    cells[row] = value
    return cells


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        ("stratifed", {}, r"no scheme 'stratifed'; did you mean stratified\?"),
        ("xyz", {}, r"no scheme 'xyz'; choose from holdout, kfold"),
        ("kfold", {"num_folds": 1}, r"num_folds is 1; scheme 'kfold' needs at least 2"),
        ("time", {"num_folds": 0}, r"num_folds is 0; scheme 'time' needs at least 1"),
        ("kfold", {"num_folds": 300}, r"203 rows cannot fill 300 folds"),
        ("kfold", {"num_rows": 1}, r"1 rows cannot be divided"),
        ("holdout", {"valid_fraction": 0.0}, r"valid_fraction is 0.0; it must lie between 0 and 1"),
        ("holdout", {"valid_fraction": 1.0}, r"valid_fraction is 1.0"),
        ("time", {"valid_fraction": 1.5, "num_folds": 1}, r"valid_fraction is 1.5"),
        ("holdout", {"groups": ["a"] * NUM_ROWS}, r"groups: all rows are of one group"),
        ("stratified", {"labels": None}, r"labels: missing, and this scheme needs them"),
        ("group", {"groups": None}, r"groups: missing"),
        ("stratified_group", {"groups": None}, r"groups: missing"),
        ("time", {"times": None}, r"times: missing"),
        ("stratified", {"labels": LABELS[1:]}, r"labels: shape \(202,\); expected one value for each of the 203 rows"),
        ("stratified", {"labels": changed(LABELS, 4, "once")}, r"labels: class 'once' has 1 rows, too few for 5 folds"),
        ("stratified_group", {"labels": changed(TIMES * 0, 4, 9)}, r"labels: class 9 has 1 rows, too few for 5 folds"),
        ("stratified", {"labels": changed(LABELS, 4, np.nan)}, r"labels: row 4 is empty \(1 such in all\)"),
        ("stratified", {"labels": changed(TIMES, 4, np.nan)}, r"labels: row 4 is empty"),
        ("stratified", {"labels": np.array(changed(TIMES * 1.0, 4, np.nan))}, r"labels: row 4 is empty"),
        ("stratified", {"labels": pd.array(changed(LABELS, 4, pd.NA), dtype="string")}, r"labels: row 4 is empty"),
        ("stratified", {"labels": changed(LABELS, 4, 3)}, r"labels: row 4 is 3, but row 0 '\w+'; make all texts"),
        ("stratified", {"labels": np.full((NUM_ROWS, 2), 2)}, r"labels, column 0: row 0 is 2; where"),
        ("group", {"groups": changed(GROUPS, 9, "")}, r"groups: row 9 is empty"),
        ("group", {"groups": changed(GROUPS, 9, None)}, r"groups: row 9 is empty"),
        ("group", {"groups": np.arange(NUM_ROWS) % 3}, r"groups: 3 of them cannot fill 5 folds"),
        ("time", {"times": changed(["2024-01-01"] * NUM_ROWS, 2, "1/31/2024")}, r"row 2 is '1/31/2024'; expected ISO"),
        ("time", {"times": np.array(["NaT"] * NUM_ROWS, dtype="datetime64[s]")}, r"times: row 0 is empty \(203 such"),
        ("time", {"times": [5] * NUM_ROWS}, r"times: fold 0 would be empty, .* one of the 1 distinct times"),
        ("time", {"times": [5] * NUM_ROWS, "num_folds": 1}, r"times: fold 0 would be empty"),
    ],
)  # fmt: skip
def test_errors_say_what_and_where(scheme, changes, message):
    with pytest.raises(ValueError, match=message):
        make_folds(scheme, **changes)
