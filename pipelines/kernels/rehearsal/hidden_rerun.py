"""Test sets as Kaggle's hidden rerun may swap them in: more rows under other ids, no rows at all, or just a few."""

import gzip
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from components.files.linking import link_or_copy
from pipelines.competitions.competition import Competition
from pipelines.competitions.csv_tables import open_table
from pipelines.competitions.csv_text import to_csv_text
from pipelines.competitions.embedded import MANIFEST
from pipelines.competitions.tables import find_table

GROWTH = 1.25
FEW_ROWS = 100
FORMER_ID = "former id"
OWN = (MANIFEST, "folds")  # what this project puts beside a competition's files

Tables = tuple[pd.DataFrame, pd.DataFrame]


def lay_out_data(competition: Competition, data_dir: Path, folder: Path, kind: str) -> int:
    """Link a competition's files into `folder`, with the test set that `kind` says; returns its rows.

    public: as it is; few: its first rows; larger, few-larger: a quarter more than these, in another order, under new
    ids; empty: none.
    """
    test_path = find_table(data_dir, competition.test_role, "podium data")
    sample_path = find_table(data_dir, "sample", "podium data")
    _link_files(data_dir, folder)
    tables = _read(test_path), _read(sample_path)
    if kind != "public":
        tables = _KINDS[kind](competition, *tables)
        _link_renamed_images(competition, tables[0], folder)
        for path, table in zip((test_path, sample_path), tables, strict=True):
            (folder / path.name).unlink(missing_ok=True)
            _write_table(table, folder / path.name)
    return len(tables[0])


def _link_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name in OWN or path.name.startswith("."):
            continue
        if path.is_dir():
            _link_files(path, target / path.name)
        else:
            link_or_copy(str(path), str(target / path.name))


def _read(path: Path) -> pd.DataFrame:
    return open_table(path).read()


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """A table as its path says: plain, or compressed as hosts ship it."""
    content = to_csv_text(table).encode("utf-8")
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{path.stem.removesuffix('.csv')}.csv", content)
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _few(competition: Competition, test: pd.DataFrame, sample: pd.DataFrame) -> Tables:
    few = test.head(FEW_ROWS)
    return few, sample[sample[competition.id_column].isin(few[competition.id_column])]


def _empty(competition: Competition, test: pd.DataFrame, sample: pd.DataFrame) -> Tables:
    return test.head(0), sample.head(0)


def _larger(competition: Competition, test: pd.DataFrame, sample: pd.DataFrame) -> Tables:
    column = competition.id_column
    more = test.sample(round(len(test) * GROWTH), replace=True, random_state=0).reset_index(drop=True)
    ids = _new_ids(test[column], more[column])
    answers = sample.set_index(column).reindex(more[column]).reset_index(drop=True)
    answers.insert(0, column, ids)
    more[FORMER_ID] = more[column]
    more[column] = ids
    return more, answers[list(sample.columns)]


def _new_ids(known: pd.Series, renamed: pd.Series) -> list[str]:
    """An id of the old ones' kind for each row, none of which stood there; a file's name keeps its ending."""
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().all() and (numbers % 1 == 0).all():
        first = int(numbers.max()) + 1
        return [str(first + index) for index in range(len(renamed))]
    return [f"hidden{index:08d}{Path(former).suffix}" for index, former in enumerate(renamed)]


def _link_renamed_images(competition: Competition, test: pd.DataFrame, folder: Path) -> None:
    """Take the former ids from the table; where ids are the names of image files, the new names need files."""
    former = test.pop(FORMER_ID) if FORMER_ID in test else None
    images = competition.images
    if former is None or images is None or images.column != competition.id_column:
        return
    for old, new in zip(former, test[competition.id_column], strict=True):
        link_or_copy(str(folder / images.test.replace("{}", old)), str(folder / images.test.replace("{}", new)))


_KINDS: Mapping[str, Callable[[Competition, pd.DataFrame, pd.DataFrame], Tables]] = {
    "few": _few,
    "larger": _larger,
    "empty": _empty,
    "few-larger": lambda competition, test, sample: _larger(competition, *_few(competition, test, sample)),
}
