"""A competition's CSV files, read as text and checked: messages name the file, the column, the line and the cure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.nearest import did_you_mean
from pipelines.competitions.csv_tables import line_of_row, open_table
from pipelines.competitions.kaggle_files import USUAL_NAMES, find_kaggle_file
from pipelines.errors import PodiumError


def find_table(data_dir: Path, role: str, cure: str) -> Path:
    """The file of `role` ("train", "test" or "sample"), under any of its usual names."""
    usual = data_dir / f"{USUAL_NAMES[role][0]}.csv"
    if usual.is_file():
        return usual
    try:
        return find_kaggle_file(data_dir, role)
    except PodiumError as error:
        raise PodiumError(f"{usual}: no such file; get it with: {cure}") from error


def load_table(path: Path, *, needed: Sequence[str], cure: str, may_be_empty: bool = False) -> pd.DataFrame:
    """All cells as text: "NA" is a place, "007" an id. Raises `PodiumError` for no CSV, no such column, no rows."""
    try:
        table = open_table(path)
        frame = table.read()
    except PodiumError as error:
        raise PodiumError(f"{error}; get it again with: {cure}") from error
    for column in needed:
        if column not in table.columns:
            hint = did_you_mean(column, table.columns)
            raise PodiumError(f"{path}: no column {column}{hint} (there are {', '.join(table.columns)})")
        if column in table.repeated:
            raise PodiumError(f"{path}: column {column} stands twice in the header; rename one")
    if frame.empty and not may_be_empty:
        raise PodiumError(f"{path}: no rows under the header; get it again with: {cure}")
    return frame


def check_ids(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raises `PodiumError` naming the first id that stands twice, and both lines."""
    twice = frame[column].duplicated(keep="first").to_numpy()
    if twice.any():
        second = int(twice.argmax())
        value = frame[column].iloc[second]
        first = int((frame[column] == value).to_numpy().argmax())
        lines = f"{line_of_row(path, first)} and {line_of_row(path, second)}"
        raise PodiumError(
            f"{path}: column {column}: {value} stands in lines {lines} "
            f"({int(twice.sum())} such rows); ids must be unique: remove one"
        )


def check_labels(cells: pd.Series, task: str, class_names: Sequence[str], path: Path) -> NDArray[Any] | pd.Series:
    """The labels of one column by task, 0/1 as int, values as float, texts and class names as they are."""
    if task == "text_to_text":
        return cells
    if task == "multiclass":
        _refuse(~cells.isin(list(class_names)).to_numpy(), cells, f"is no class; use one of {_some(class_names)}", path)
        return cells
    values = np.asarray(pd.to_numeric(cells, errors="coerce").to_numpy(), dtype=np.float64)
    if task == "regression":
        _refuse(~np.isfinite(values), cells, "is not a finite number", path)
        return values
    if task == "multilabel":
        _refuse(~((values >= 0) & (values <= 1)), cells, "is not 0, 1 or a share between them", path)
        return values
    _refuse(~np.isin(values, (0.0, 1.0)), cells, "is neither 0 nor 1", path)
    return values.astype(np.int64)


def _refuse(bad: NDArray[np.bool_], cells: pd.Series, problem: str, path: Path) -> None:
    if bad.any():
        row = int(bad.argmax())
        more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
        raise PodiumError(
            f"{path}: column {cells.name}, line {line_of_row(path, row)}: {cells.iloc[row]!r} {problem}{more}"
        )


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
