"""Folds are made once, written, and read ever after: library versions may differ where a run is continued."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame

from components.data.folds import assign_folds, fold_hash
from components.files.atomic import atomic_file
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError

Folds = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]

STATED = "# folds_sha256 "
NEW_RUN = "restore the file, or start a new run with make experiment"


def obtain_folds(experiment: Experiment, competition: Competition, train: DataFrame, data_dir: Path) -> Folds:
    """The fold of each training row, from the file beside the data that the first run with equal inputs left there.

    Its name holds all that the scheme reads: settings, ids, and labels, groups or times where it looks at them.
    Raises `PodiumError` for a file that was changed since it was written.
    """
    columns = _columns(experiment, competition, train)
    path = data_dir / "folds" / f"{_scheme_name(experiment)}-{_digest_inputs(competition, train, columns)}.csv"
    if path.exists():
        return _read_kept(path, train)
    folds = _assign(experiment, train, columns)
    write_folds(path, train, folds, is_kept=True)
    return folds


def _scheme_name(experiment: Experiment) -> str:
    section = experiment.raw["folds"]
    return "-".join([section["name"], *(f"{key}={value}" for key, value in sorted(section.items()) if key != "name")])


def _digest_inputs(competition: Competition, train: DataFrame, columns: Columns) -> str:
    """Of ids and columns, with the names that the competition gives these."""
    defaults = competition.folds
    names = {"labels": competition.label_columns, "groups": defaults.group_column, "times": defaults.time_column}
    digest = hashlib.sha256(json.dumps(["folds 2", train["id"].tolist()]).encode())
    for what, values in columns.items():
        digest.update(json.dumps([what, names[what], values.dtype.kind, values.tolist()]).encode())
    return digest.hexdigest()[:12]


def _columns(experiment: Experiment, competition: Competition, train: DataFrame) -> Columns:
    """What the scheme looks at beside the number of rows."""
    name, defaults = experiment.folds.name, competition.folds
    columns: dict[str, NDArray[Any]] = {}
    if name.startswith("stratified"):
        label = train[competition.frame_labels].to_numpy()
        label = label if competition.task == "multilabel" else label[:, 0]
        # Values are stratified by bins, whole numbers would be classes.
        columns["labels"] = label.astype(np.float64) if competition.task == "regression" else label
    if name in ("group", "stratified_group") or (name == "holdout" and defaults.group_column is not None):
        columns["groups"] = _column(competition, train, defaults.group_column, "groups")
    if name == "time":
        columns["times"] = _column(competition, train, defaults.time_column, "times")
    return columns


def _assign(experiment: Experiment, train: DataFrame, columns: Columns) -> Folds:
    section = experiment.folds
    try:
        return assign_folds(
            scheme=section.name,
            num_rows=len(train),
            num_folds=section.num_folds,
            valid_fraction=getattr(section, "valid_fraction", 0.0),
            seed=getattr(section, "seed", 0),
            **columns,
        )
    except ValueError as error:
        raise PodiumError(f"{experiment.name}: folds.name: {section.name}: {error}") from error


def _column(competition: Competition, train: DataFrame, name: str | None, what: str) -> NDArray[np.object_]:
    if name is None:
        raise PodiumError(f"folds need {what}, but the competition names no column for them; choose another folds.name")
    return np.asarray(train[competition.frame_column(name)].to_numpy(), dtype=object)


def write_folds(path: Path, train: DataFrame, folds: Folds, *, is_kept: bool = False) -> None:
    """Columns `id` and `fold`, in the order of the rows; a file that is kept for later runs states its own digest."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if is_kept:
            file.write(f"{STATED}{hash_folds(train, folds)}\n")
        DataFrame({"id": train["id"].to_numpy(), "fold": folds}).to_csv(file, index=False, lineterminator="\n")


def read_folds(path: Path, train: DataFrame, *, sha256: str | None = None) -> Folds:
    """The fold of each row of a run, as they were when it started (`sha256`, as `hash_folds` gives it).

    Raises `PodiumError` for a file that is damaged, that was edited, or that was made for other rows.
    """
    return _read(path, train, sha256, 0, NEW_RUN)


def _read_kept(path: Path, train: DataFrame) -> Folds:
    cure = "remove it, and the folds are made again"
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    if not first.startswith(STATED):
        raise PodiumError(f"{path}: damaged, the line that states its digest is missing; {cure}")
    return _read(path, train, first.removeprefix(STATED), 1, cure)


def _read(path: Path, train: DataFrame, sha256: str | None, num_lines: int, cure: str) -> Folds:
    """`num_lines` stand before the header."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skiprows=num_lines, index_col=False)
    except FileNotFoundError:
        raise PodiumError(f"{path}: missing; {cure}") from None
    except ValueError as error:
        raise PodiumError(f"{path}: damaged, {str(error).strip().splitlines()[0]}; {cure}") from error
    if list(frame.columns) != ["id", "fold"]:
        raise PodiumError(f"{path}: damaged, its columns are not id and fold; {cure}")
    _check_rows(path, frame, train)
    bad = ~frame["fold"].str.fullmatch(r"-1|\d{1,9}").to_numpy(dtype=bool)
    if bad.any():
        row_id, fold = frame.iloc[int(bad.argmax())]
        raise PodiumError(f"{path}: id {row_id}: {fold!r} is no fold; {cure}")
    folds = np.asarray(frame["fold"].astype(np.int64).to_numpy(), dtype=np.int64)
    if sha256 is not None and hash_folds(train, folds) != sha256:
        raise PodiumError(f"{path}: changed since it was written (sha256 was {sha256[:12]}); {cure}")
    return folds


def _check_rows(path: Path, frame: DataFrame, train: DataFrame) -> None:
    there, here = frame["id"].tolist(), train["id"].tolist()
    if there == here:
        return
    if len(there) != len(here):
        difference = f"it holds {len(there)} rows, and train {len(here)}"
    else:
        row = next(index for index, (left, right) in enumerate(zip(there, here, strict=True)) if left != right)
        difference = f"row {row + 1} is id {there[row]!r}, and in train {here[row]!r}"
    raise PodiumError(f"{path}: made for other rows: {difference}; put the former data back, or {NEW_RUN}")


def hash_folds(train: DataFrame, folds: Folds) -> str:
    """What run.json records: equal hashes mean equal splits."""
    return fold_hash(train["id"].tolist(), folds)
