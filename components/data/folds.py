"""Who validates when: each row gets the fold in which it is held out, once, from a seed.

The number of a row's fold is all that is kept; a file of (id, fold) travels with every run. Groups, classes and times
are looked at by value, so the order of equal ones decides nothing but which of them the seed picks.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from components.nearest import did_you_mean
from numpy.typing import ArrayLike, NDArray

from components.ranks import count_smaller

NEVER = -1
NUM_LABEL_BINS = 10


@dataclass(frozen=True)
class _Rows:
    """What a scheme may look at; it checks the columns that it needs, and no others."""

    num_rows: int
    num_folds: int
    valid_fraction: float
    rng: np.random.Generator
    labels: ArrayLike | None
    groups: ArrayLike | None
    times: ArrayLike | None


def assign_folds(
    *,
    scheme: str,
    num_rows: int,
    num_folds: int,
    valid_fraction: float,
    seed: int,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """The fold in which each row is validated, (num_rows,); -1 is never.

    Args:
        scheme: a key of FOLD_SCHEMES, where each is described. A column that the scheme has no use for is ignored.
        num_rows: N, the length of every column given.
        num_folds: at least 2; `holdout` makes one whatever it says, `time` may be asked for one.
        valid_fraction: share of the rows held out by `holdout` and by `time` with one fold; others ignore it.
        seed: of numpy's PCG64; the same seed and columns give the same folds.
        labels: (N,) texts or integers are classes, floats are values and fall into ten bins of about equal count;
            (N, C) zeros and ones are several labels per row.
        groups: (N,) whatever must not stand on both sides (a patient, a source sentence).
        times: (N,) numbers, datetimes or texts in ISO 8601.

    Raises:
        ValueError: naming the argument, the row or class, and what would work.
    """
    if scheme not in FOLD_SCHEMES:
        hint = did_you_mean(scheme, FOLD_SCHEMES, f"choose from {', '.join(FOLD_SCHEMES)}")
        raise ValueError(f"folds: no scheme {scheme!r}{hint}")
    rows = _Rows(
        num_rows=num_rows,
        num_folds=num_folds,
        valid_fraction=valid_fraction,
        rng=np.random.Generator(np.random.PCG64(seed)),
        labels=labels,
        groups=groups,
        times=times,
    )
    _check_numbers(scheme, rows)
    return FOLD_SCHEMES[scheme](rows)


def train_valid_rows(
    folds: NDArray[np.int64], fold: int, *, scheme: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to validate on, both ascending.

    With `time` a fold trains on what came before it: rows of a lower fold (-1 is the earliest block). Otherwise it
    trains on every row of another fold, those of -1 included.
    """
    if fold < 0 or fold not in folds:
        found = sorted(set(folds.tolist()) - {NEVER})
        raise ValueError(f"folds: no fold {fold}; the file has {', '.join(map(str, found)) or 'none'}")
    is_train = folds < fold if scheme == "time" else folds != fold
    return np.flatnonzero(is_train), np.flatnonzero(folds == fold)


def fold_hash(ids: Sequence[object], folds: Sequence[int] | NDArray[np.int64]) -> str:
    """SHA-256 (hex) of which id is in which fold, whatever the order of the rows; ids are compared as text.

    Raises:
        ValueError: lengths differ, or an id stands twice.
    """
    if len(ids) != len(folds):
        raise ValueError(f"folds: {len(ids)} ids but {len(folds)} folds")
    pairs = sorted((str(name), int(fold)) for name, fold in zip(ids, folds, strict=True))
    for (name, _), (following, _) in pairwise(pairs):
        if name == following:
            raise ValueError(f"folds: id {name!r} stands in more than one row; ids must be unique")
    return hashlib.sha256("\n".join(json.dumps(pair) for pair in pairs).encode()).hexdigest()


def _holdout(rows: _Rows) -> NDArray[np.int64]:
    """Fold 0 is a random `valid_fraction` of the rows, or of the groups where there are groups; the rest trains."""
    members = np.arange(rows.num_rows) if rows.groups is None else _group_codes(rows)
    num_members = int(members.max()) + 1
    if num_members < 2:
        raise ValueError("groups: all rows are of one group, which cannot be on both sides; choose another column")
    num_held_out = min(max(round(rows.valid_fraction * num_members), 1), num_members - 1)
    is_held_out = np.isin(members, rows.rng.permutation(num_members)[:num_held_out])
    return np.where(is_held_out, 0, NEVER)


def _kfold(rows: _Rows) -> NDArray[np.int64]:
    """Rows at random, folds of equal size."""
    return _deal(np.zeros(rows.num_rows, dtype=np.int64), rows)


def _stratified(rows: _Rows) -> NDArray[np.int64]:
    """Every fold gets its share of each class, to within one row; of several labels, see `_strata`."""
    labels = _checked_labels(rows)
    _check_rarest_class(labels, rows.num_folds)
    return _deal(_strata(labels, rows.num_folds), rows)


def _group(rows: _Rows) -> NDArray[np.int64]:
    """Whole groups, folds of about equal size."""
    groups = _group_codes(rows)
    return _deal_groups(groups, np.bincount(groups)[:, None], rows)


def _stratified_group(rows: _Rows) -> NDArray[np.int64]:
    """Whole groups, so dealt that folds are alike in size and in classes as far as the groups allow."""
    labels = _checked_labels(rows)
    groups = _group_codes(rows)
    if labels.ndim == 2:
        counts = np.zeros((int(groups.max()) + 1, labels.shape[1]))
        np.add.at(counts, groups, labels)
    else:
        _check_rarest_class(labels, rows.num_folds)
        strata = _strata(labels, rows.num_folds)
        counts = np.zeros((int(groups.max()) + 1, int(strata.max()) + 1))
        np.add.at(counts, (groups, strata), 1)
    return _deal_groups(groups, np.column_stack([np.bincount(groups), counts]), rows)


def _time(rows: _Rows) -> NDArray[np.int64]:
    """Blocks of about equal size from early to late; the earliest is -1, and fold k trains on all blocks before it.

    One fold is the latest `valid_fraction` of the rows. Rows of equal time share a block.
    """
    times = _time_codes(rows)
    num_earlier = count_smaller(times)
    if rows.num_folds == 1:
        num_valid = min(max(round(rows.valid_fraction * rows.num_rows), 1), rows.num_rows - 1)
        folds = np.where(num_earlier >= rows.num_rows - num_valid, 0, NEVER)
    else:
        folds = num_earlier * (rows.num_folds + 1) // rows.num_rows - 1
    missing = sorted(set(range(NEVER, rows.num_folds)) - set(folds.tolist()))
    if missing:
        block = "the earliest block" if missing[0] == NEVER else f"fold {missing[0]}"
        raise ValueError(
            f"times: {block} would be empty, because too many of the {rows.num_rows} rows share one of the "
            f"{int(times.max()) + 1} distinct times; lower num_folds or use a finer time"
        )
    return folds


FOLD_SCHEMES: dict[str, Callable[[_Rows], NDArray[np.int64]]] = {
    "holdout": _holdout,
    "kfold": _kfold,
    "stratified": _stratified,
    "group": _group,
    "stratified_group": _stratified_group,
    "time": _time,
}
"""Every way to make folds, by its name."""


def _deal(strata: NDArray[np.int64], rows: _Rows) -> NDArray[np.int64]:
    """Shuffles, sorts by stratum and deals like cards: any stratum, and the whole, is even to within one row."""
    shuffled = rows.rng.permutation(rows.num_rows)
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    folds = np.empty(rows.num_rows, dtype=np.int64)
    # Which fold gets the odd rows is left to chance too.
    folds[order] = rows.rng.permutation(rows.num_folds)[np.arange(rows.num_rows) % rows.num_folds]
    return folds


def _deal_groups(groups: NDArray[np.int64], counts: NDArray[Any], rows: _Rows) -> NDArray[np.int64]:
    """Gives each group, heaviest first, to the fold that keeps the sum of squared loads least.

    Args:
        groups: (N,) codes of G groups.
        counts: (G, C) of what is to be evened out; each column weighs alike, however rare. The first is the rows.
        rows: for the number of folds and the random order of groups that weigh the same.
    """
    num_groups = len(counts)
    if num_groups < rows.num_folds:
        raise ValueError(f"groups: {num_groups} of them cannot fill {rows.num_folds} folds; lower num_folds")
    weights = counts / np.maximum(counts.sum(axis=0), 1)
    shuffled = rows.rng.permutation(num_groups)
    heaviest_first = shuffled[np.argsort(-np.square(weights[shuffled]).sum(axis=1), kind="stable")]
    loads = np.zeros((rows.num_folds, counts.shape[1]))
    fold_of_group = np.empty(num_groups, dtype=np.int64)
    for group in heaviest_first:
        # (load + group)^2 - load^2 differs between folds by 2 * load * group only, and is least in an empty fold.
        fold = int(np.argmin(loads @ weights[group]))
        loads[fold] += weights[group]
        fold_of_group[group] = fold
    return fold_of_group[groups]


def _strata(labels: NDArray[Any], num_folds: int) -> NDArray[np.int64]:
    """Classes as codes; values as up to ten bins by rank; several labels per row as their combination.

    A combination too rare to reach every fold counts as the rarest of its labels: this evens out single labels nearly
    as well as iterative stratification (Sechidis et al. 2011) where combinations repeat, in one pass.
    """
    if labels.ndim == 2:
        _, combinations, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
        combinations = combinations.reshape(-1)  # (N,); numpy 2.0 gives (N, 1)
        by_rarity = np.argsort(labels.sum(axis=0), kind="stable")
        rarest = np.where(labels.any(axis=1), by_rarity[np.argmax(labels[:, by_rarity], axis=1)], labels.shape[1])
        return np.where(counts[combinations] >= num_folds, combinations, len(counts) + rarest)
    if labels.dtype.kind == "f":
        num_bins = max(min(NUM_LABEL_BINS, len(labels) // num_folds), 1)
        num_below = count_smaller(labels)
        return _codes(num_below * num_bins // len(labels))
    return _codes(labels)


def _codes(values: NDArray[Any]) -> NDArray[np.int64]:
    """Each value's place among the sorted distinct values."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _check_numbers(scheme: str, rows: _Rows) -> None:
    if rows.num_rows < 2:
        raise ValueError(f"folds: {rows.num_rows} rows cannot be divided; at least 2 are needed")
    least = {"holdout": rows.num_folds, "time": 1}.get(scheme, 2)
    if rows.num_folds < least:
        raise ValueError(f"folds: num_folds is {rows.num_folds}; scheme {scheme!r} needs at least {least}")
    if scheme != "holdout" and rows.num_folds > rows.num_rows:
        raise ValueError(f"folds: {rows.num_rows} rows cannot fill {rows.num_folds} folds; lower num_folds")
    if not 0 < rows.valid_fraction < 1 and (scheme == "holdout" or (scheme == "time" and rows.num_folds == 1)):
        raise ValueError(f"folds: valid_fraction is {rows.valid_fraction}; it must lie between 0 and 1")


def _check_rarest_class(labels: NDArray[Any], num_folds: int) -> None:
    """Values are binned and several labels merged when rare; only classes can be too rare to divide."""
    if labels.ndim == 2 or labels.dtype.kind == "f":
        return
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(np.argmin(counts))
    if counts[rarest] < num_folds:
        raise ValueError(
            f"labels: class {classes.tolist()[rarest]!r} has {counts[rarest]} rows, too few for {num_folds} folds; "
            "lower num_folds, merge it with another class, or use kfold or group (values to be binned must be floats)"
        )


def _checked_labels(rows: _Rows) -> NDArray[Any]:
    """Classes or values (N,), or zeros and ones (N, C) with C > 1."""
    array = np.asarray(rows.labels)
    if array.ndim != 2 or array.shape[1] == 1:
        return _column("labels", rows.labels if array.ndim != 2 else array[:, 0], rows.num_rows)
    for index in range(array.shape[1]):
        name = f"labels, column {index}"
        column = _column(name, array[:, index], rows.num_rows)
        wrong = np.flatnonzero(~np.isin(column, (0, 1)))
        if len(wrong):
            found = column.tolist()[wrong[0]]
            raise ValueError(f"{name}: row {wrong[0]} is {found!r}; where labels have several columns each is 0 or 1")
    return array.astype(np.int64)


def _group_codes(rows: _Rows) -> NDArray[np.int64]:
    return _codes(_column("groups", rows.groups, rows.num_rows))


def _time_codes(rows: _Rows) -> NDArray[np.int64]:
    array = _column("times", rows.times, rows.num_rows)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            array = np.array([_parsed_time(cell, row) for row, cell in enumerate(array)])
        array = _column("times", array, rows.num_rows)
    return _codes(array)


def _parsed_time(cell: str | datetime, row: int) -> np.datetime64:
    try:
        return np.datetime64(cell, "us")
    except ValueError:
        raise ValueError(
            f"times: row {row} is {cell!r}; expected ISO 8601, as in 2024-01-31T18:05, or numbers"
        ) from None


def _column(name: str, values: ArrayLike | None, num_rows: int) -> NDArray[Any]:
    """(num_rows,) without gaps: numbers, datetimes, or an object array of texts."""
    if values is None:
        raise ValueError(
            f"{name}: missing, and this scheme needs them; name the column they stand in, or change scheme"
        )
    # numpy would turn a gap between texts into the text "nan"; as objects, a list keeps it.
    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    if array.shape != (num_rows,):
        raise ValueError(f"{name}: shape {array.shape}; expected one value for each of the {num_rows} rows")
    if array.dtype.kind in "biu":
        return array
    missing = np.flatnonzero(np.isnat(array) if array.dtype.kind in "mM" else [_is_missing(value) for value in array])
    if len(missing):
        raise ValueError(
            f"{name}: row {missing[0]} is empty ({len(missing)} such in all); fill these rows or drop them"
        )
    if array.dtype.kind in "fmM":
        return array
    cells = array.tolist()
    is_text = [isinstance(cell, str) for cell in cells]
    if any(is_text) and not all(is_text):
        row = is_text.index(not is_text[0])
        raise ValueError(f"{name}: row {row} is {cells[row]!r}, but row 0 {cells[0]!r}; make all texts or all numbers")
    return np.array(cells, dtype=object if all(is_text) else None)


def _is_missing(value: object) -> bool:
    """An empty text, None, NaN or pandas' NA; the last two are not equal to themselves, NA not even unequal."""
    if isinstance(value, str):
        return not value.strip()
    same = value == value
    return value is None or not (isinstance(same, bool | np.bool_) and bool(same))
