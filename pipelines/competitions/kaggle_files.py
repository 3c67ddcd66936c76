"""The three CSV files of a Kaggle competition, whatever they are called, read as they stand: text, and no guessing."""

from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.errors import PodiumError

USUAL_NAMES = {
    "train": ("train", "training", "train_data", "training_data"),
    "test": ("test", "testing", "test_data", "testing_data"),
    "sample": (
        "sample_submission",
        "samplesubmission",
        "submission_sample",
        "sample",
        "submission",
        "gender_submission",
    ),
}
SUFFIXES = (".csv", ".csv.gz", ".csv.zip", ".zip")  # of a single file; pandas opens all four


def find_kaggle_file(data_dir: Path, role: str) -> Path:
    """The file of `role` ("train", "test" or "sample") in `data_dir`; raises PodiumError when there is none."""
    files = {file.name.lower().replace("-", "_"): file for file in sorted(data_dir.glob("*")) if file.is_file()}
    for stem in USUAL_NAMES[role]:
        for suffix in SUFFIXES:
            if stem + suffix in files:
                return files[stem + suffix]
    seen = ", ".join(file.name for file in files.values()) or "nothing"
    raise PodiumError(f"{data_dir}: no {USUAL_NAMES[role][0]}.csv there, only {seen}; copy the file to that name")


class KaggleFiles:
    """Train, test and sample submission; columns are read one by one, since some tables are larger than memory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._paths = {role: find_kaggle_file(data_dir, role) for role in USUAL_NAMES}
        self.columns = {role: _header(path) for role, path in self._paths.items()}
        self._read: dict[tuple[str, str], pd.Series] = {}

    def path(self, role: str) -> Path:
        return self._paths[role]

    def column(self, role: str, name: str) -> pd.Series:
        """The strings of a column, "" where nothing stands."""
        if (role, name) not in self._read:
            self._read[role, name] = _read_csv(self._paths[role], usecols=[name])[name]
        return self._read[role, name]


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401  (pandas' own arguments)
    try:
        table: pd.DataFrame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", **options)
    except (ValueError, OSError) as error:  # pandas' parser errors and a wrong encoding are ValueErrors
        raise PodiumError(f"{path}: not a CSV file that can be read ({str(error).splitlines()[0]})") from error
    return table


def _header(path: Path) -> list[str]:
    names = [str(name) for name in _read_csv(path, nrows=1, header=None).iloc[0]]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise PodiumError(f"{path}: column {twice[0]!r} stands twice in the first line; rename one")
    return [str(name) for name in _read_csv(path, nrows=1).columns]
