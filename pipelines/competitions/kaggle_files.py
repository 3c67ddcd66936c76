"""The three CSV files of a Kaggle competition, whatever they are called, read as they stand: text, and no guessing."""

from pathlib import Path

import pandas as pd

from pipelines.competitions.csv_tables import CsvTable, line_of_row, open_table
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
SUFFIXES = (".csv", ".csv.gz", ".csv.zip", ".zip")  # of a single file; `open_table` opens all four


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
        self._tables = {role: _open(find_kaggle_file(data_dir, role)) for role in USUAL_NAMES}
        self.columns = {role: list(table.columns) for role, table in self._tables.items()}
        self._read: dict[tuple[str, str], pd.Series] = {}

    def path(self, role: str) -> Path:
        return self._tables[role].path

    def column(self, role: str, name: str) -> pd.Series:
        """The strings of a column, "" where nothing stands."""
        if (role, name) not in self._read:
            self._read[role, name] = self._tables[role].read([name])[name]
        return self._read[role, name]

    def line(self, role: str, row: int) -> int:
        """The line of the file in which a row begins, for messages; 0 is the first row under the header."""
        return line_of_row(self.path(role), row)


def _open(path: Path) -> CsvTable:
    table = open_table(path)
    if table.repeated:
        raise PodiumError(f"{path}: column {table.repeated[0]!r} stands twice in the first line; rename one")
    return table
