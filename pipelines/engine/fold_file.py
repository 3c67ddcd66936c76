"""Folds are made once, written, and read ever after: library versions may differ where a run is continued."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame

from components.atomic_files import atomic_file
from components.data.folds import assign_folds, fold_hash
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError

Folds = NDArray[np.int64]


def obtain_folds(experiment: Experiment, competition: Competition, train: DataFrame, data_dir: Path) -> Folds:
    """The fold of each training row, from the file that the first run with this scheme left beside the data."""
    path = data_dir / "folds" / f"{_scheme_name(experiment)}-{_digest_ids(train)}.csv"
    if path.exists():
        return read_folds(path, train)
    folds = _assign(experiment, competition, train)
    write_folds(path, train, folds)
    return folds


def _scheme_name(experiment: Experiment) -> str:
    section = experiment.raw["folds"]
    return "-".join([section["name"], *(f"{key}={value}" for key, value in sorted(section.items()) if key != "name")])


def _digest_ids(train: DataFrame) -> str:
    return hashlib.sha256("\n".join(train["id"]).encode()).hexdigest()[:12]


def _assign(experiment: Experiment, competition: Competition, train: DataFrame) -> Folds:
    section, defaults = experiment.folds, competition.folds
    columns = competition.frame_columns
    group, moment = (name and columns[name] for name in (defaults.group_column, defaults.time_column))
    label = train[competition.frame_labels].to_numpy()
    label = label if competition.task == "multilabel" else label[:, 0]
    if competition.task == "regression":
        label = label.astype(np.float64)  # values are stratified by bins, whole numbers would be classes
    is_stratified = section.name.startswith("stratified")
    needs_groups = section.name in ("group", "stratified_group") or (section.name == "holdout" and group is not None)
    try:
        return assign_folds(
            scheme=section.name,
            num_rows=len(train),
            num_folds=section.num_folds,
            valid_fraction=getattr(section, "valid_fraction", 0.0),
            seed=getattr(section, "seed", 0),
            labels=label if is_stratified else None,
            groups=_column(train, group, "groups") if needs_groups else None,
            times=_column(train, moment, "times") if section.name == "time" else None,
        )
    except ValueError as error:
        raise PodiumError(f"{experiment.name}: folds.name: {section.name}: {error}") from error


def _column(train: DataFrame, name: str | None, what: str) -> NDArray[np.object_]:
    if name is None:
        raise PodiumError(f"folds need {what}, but the competition names no column for them; choose another folds.name")
    return np.asarray(train[name].to_numpy(), dtype=object)


def write_folds(path: Path, train: DataFrame, folds: Folds) -> None:
    """Columns `id` and `fold`, in the order of the rows."""
    with atomic_file(path) as partial:
        DataFrame({"id": train["id"].to_numpy(), "fold": folds}).to_csv(partial, index=False, lineterminator="\n")


def read_folds(path: Path, train: DataFrame) -> Folds:
    """The fold of each row; a PodiumError when the file was made for other rows."""
    frame = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    if list(frame["id"]) != list(train["id"]):
        raise PodiumError(
            f"{path}: made for {len(frame)} other rows than the {len(train)} of train.csv; the data have changed "
            "since, so start a new run with make experiment"
        )
    return np.asarray(frame["fold"].to_numpy(), dtype=np.int64)


def hash_folds(train: DataFrame, folds: Folds) -> str:
    """What run.json records: equal hashes mean equal splits."""
    return fold_hash(train["id"].tolist(), folds)
