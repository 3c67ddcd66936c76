"""The one reader of CSV tables: each row has as many cells as the header has names, or the table is refused.

pandas takes the first cells of longer rows for an index, which shifts every column, and fills shorter rows up; it says
so in neither case. Here Python's `csv` counts the cells beforehand: about 1 s for a million rows of ten cells, beside
the 3 s that pandas takes to read them.
"""

import csv
import gzip
import io
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from pipelines.errors import PodiumError

MOST_SHOWN = 40  # characters of a cell in a message
QUOTING = "a text that holds a comma, a quote or a line break stands between double quotes"


@dataclass(frozen=True)
class CsvTable:
    """A table whose rows have been counted; its cells are read when they are asked for."""

    path: Path
    columns: tuple[str, ...]
    """As pandas names them: "Unnamed: 2" for an empty name, "x.1" for a second "x"."""
    repeated: tuple[str, ...]
    """The names that stand in the header more than once."""
    num_cells: int
    """Of each row; those beyond the columns are empty."""
    num_rows: int | None
    """Under the header; None for a table of one column, where a line of blanks may be a row or none."""

    def read(self, columns: Sequence[str] | None = None, *, is_typed: bool = False) -> pd.DataFrame:
        """The cells as text ("" where nothing stands), or as pandas types them; all columns unless some are named."""
        extra = [f"beyond {index}" for index in range(self.num_cells - len(self.columns))]
        wanted = list(self.columns if columns is None else columns)
        options: dict[str, Any] = {} if is_typed else {"dtype": str}
        if extra or columns is not None or self.num_cells < len(self.columns):
            options |= {"header": 0, "names": [*self.columns, *extra], "usecols": wanted, "index_col": False}
        try:
            with _open_text(self.path) as file:
                frame: pd.DataFrame = pd.read_csv(file, keep_default_na=False, **options)[wanted]
        except ValueError as error:
            raise _unreadable(self.path, error) from error
        if self.num_rows not in (None, len(frame)):
            raise PodiumError(
                f"{self.path}: {self.num_rows} rows by their line ends, but {len(frame)} as pandas reads them; end "
                "every line in the same way, and take out lines that hold nothing but a quoted blank"
            )
        return frame


def open_table(path: Path) -> CsvTable:
    """Reads the header and counts the cells of every row.

    Empty cells at the end of every row, which a comma at the end of each line makes, are no cells. Raises
    `PodiumError` naming the line for a row that is longer or shorter than the header, for a quote that is never closed
    and for text that is not UTF-8; an empty file too.
    """
    try:
        header, counts = _count_cells(path, is_strict=True)
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error
    except csv.Error:
        _check_quotes(path)
        header, counts = _count_cells(path, is_strict=False)
    num_cells = _common_width(path, header, counts)
    names = list(pd.read_csv(io.StringIO(_as_line(header)), dtype=str, keep_default_na=False).columns)
    columns = tuple(str(name) for name in names[:num_cells])
    repeated = tuple(name for name, number in Counter(header).items() if name and number > 1)
    return CsvTable(path, columns, repeated, num_cells, sum(counts.values()) if num_cells > 1 else None)


def line_of_row(path: Path, row: int) -> int:
    """The line of the file in which a row (0 is the first under the header) begins: texts may hold line breaks."""
    with _rows(path, is_strict=False) as rows:
        for index, (line, _, _) in enumerate(found for found in rows if not _is_blank(found[2])):
            if index == row + 1:
                return line
    raise IndexError(f"{path} has no row {row}")


# -- counting --------------------------------------------------------------------------------------------------------


def _count_cells(path: Path, *, is_strict: bool) -> tuple[list[str], Counter[int]]:
    """The header, and how many rows have how many cells."""
    with _reader(path, is_strict=is_strict) as reader:
        header = next((cells for cells in reader if not _is_blank(cells)), None)
        if header is None:
            raise PodiumError(f"{path}: the file is empty")
        counts = Counter(map(len, reader))
    counts.pop(0, None)  # empty lines
    if len(header) > 1 and 1 in counts:
        counts -= Counter({1: _count_blank(path)})
    return header, counts


def _count_blank(path: Path) -> int:
    """Lines of nothing but blanks."""
    with _reader(path, is_strict=False) as reader:
        return sum(1 for cells in reader if cells and _is_blank(cells))


def _common_width(path: Path, header: list[str], counts: Counter[int]) -> int:
    """The number of cells of every row; raises `PodiumError` for rows that differ, or hold more than the names do."""
    named = len(header)
    while named > 1 and not header[named - 1].strip():
        named -= 1  # a comma at the end of the header
    widths = set(counts)
    if widths <= {len(header)}:
        return len(header)
    if len(widths) == 1 and named <= min(widths) < len(header):
        return min(widths)
    are_longer = len(widths) == 1 and min(widths) > len(header)
    first, number = None, 0
    with _rows(path, is_strict=False) as rows:
        for found in rows:
            cells = found[2]
            if not _is_blank(cells) and (any(cells[len(header) :]) if are_longer else len(cells) != len(header)):
                first, number = first or found, number + 1
    if first is None:
        return min(widths)
    raise _uneven(path, len(header), first, number)


def _uneven(path: Path, num_names: int, bad: tuple[int, int, list[str]], number: int) -> PodiumError:
    line, last, cells = bad
    place = f"line {line}" if last == line else f"lines {line} to {last}, by their quotes one row"
    more = f" ({number} such rows)" if number > 1 else ""
    cells_there = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
    cure = f"{QUOTING}, and an empty cell keeps its comma" if num_names > 1 else "cells are separated by commas"
    return PodiumError(
        f"{path}: {place}, beginning with {_shortened(cells[0])}: {cells_there}, but the header has {num_names}"
        f"{more}; {cure}"
    )


def _check_quotes(path: Path) -> None:
    """Refuses a quote that opens in one line and is closed in none, or in another where a cell goes on behind it.

    A cell that goes on behind its quotes within one line ("a" b) is read as it ever was.
    """
    begin = 1
    with _reader(path, is_strict=True) as reader:
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                if reader.line_num > begin or "end of data" in str(error):
                    raise PodiumError(
                        f"{path}: a quote that opens in the row of line {begin} is not closed there (it runs to line "
                        f"{reader.line_num}); close it, or write it twice: {QUOTING}"
                    ) from error
            else:
                if cells is None:
                    return
            begin = reader.line_num + 1


def _shortened(cell: str) -> str:
    return repr(cell if len(cell) <= MOST_SHOWN else cell[:MOST_SHOWN] + "...")


def _is_blank(cells: list[str]) -> bool:
    """A line without anything in it, which pandas passes over."""
    return not cells or (len(cells) == 1 and bool(cells[0]) and not cells[0].strip(" \t"))


def _as_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


# -- opening ---------------------------------------------------------------------------------------------------------


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """The text of a table, plain, in gzip or alone in a zip, its line ends as they are."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_member(archive, path)) as packed:
                yield io.TextIOWrapper(packed, encoding="utf-8-sig", newline="")
        elif path.suffix.lower() == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise PodiumError(f"{path}: not a table that can be read ({reason})") from error


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        shown = f", {members[0].filename} the first" if members else ""
        raise PodiumError(f"{path}: holds {len(members)} files{shown}, so it is no table; unzip what is needed of it")
    return members[0]


@contextmanager
def _reader(path: Path, *, is_strict: bool) -> Iterator[Any]:
    """`csv.reader`, without its limit of 131,072 characters a cell."""
    former = csv.field_size_limit(sys.maxsize)
    try:
        with _open_text(path) as file:
            yield csv.reader(file, strict=is_strict)
    finally:
        csv.field_size_limit(former)


@contextmanager
def _rows(path: Path, *, is_strict: bool) -> Iterator[Iterator[tuple[int, int, list[str]]]]:
    """Each row with the lines in which it begins and ends; the header is the first that is not blank."""
    with _reader(path, is_strict=is_strict) as reader:

        def number() -> Iterator[tuple[int, int, list[str]]]:
            before = 0
            for cells in reader:
                yield before + 1, reader.line_num, cells
                before = reader.line_num

        yield number()


def _unreadable(path: Path, error: Exception) -> PodiumError:
    if not isinstance(error, UnicodeDecodeError):
        return PodiumError(f"{path}: not a CSV file that can be read ({str(error).strip().splitlines()[0]})")
    line, byte = _first_bad_byte(path)
    place = f"line {line}: byte 0x{byte:02x} is not UTF-8" if line else "not a CSV file in UTF-8"
    return PodiumError(
        f"{path}: {place}; write the file in UTF-8 (iconv -t UTF-8 -f LATIN1, or whatever its encoding is)"
    )


def _first_bad_byte(path: Path) -> tuple[int, int]:
    """The line and the value of the first byte that is no UTF-8; (0, 0) where there is none."""
    with _open_text(path) as file:
        raw: Any = file.buffer
        for line, content in enumerate(raw, start=1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                return line, content[error.start]
    return 0, 0
