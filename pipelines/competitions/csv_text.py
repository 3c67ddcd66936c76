"""A table as CSV text whose rows read back as they were, whatever its cells hold."""

from collections.abc import Callable
from itertools import chain

import pandas as pd

LINE_END = "\n"
_PRIVATE_USE = range(0xE000, 0xF900)  # characters that Unicode gives no meaning to


def to_csv_text(frame: pd.DataFrame, *, float_format: Callable[[object], str] | None = None) -> str:
    """Lines end in "\\n"; cells are quoted only where they must be, and one with a bare "\\r" must be.

    Python's writer quotes the characters of its own line end alone, while readers take a bare carriage return for the
    end of a row. Such a cell is written with a line feed, which is quoted, and a mark, and both are replaced after.
    """
    columns = [column for column in frame.columns if _holds_returns(frame[column])]
    if not columns and not any("\r" in str(column) for column in frame.columns):
        return str(frame.to_csv(index=False, lineterminator=LINE_END, float_format=float_format))
    mark = LINE_END + _unused_character(frame)
    marked = frame.copy()
    for column in columns:
        marked[column] = [cell.replace("\r", mark) if isinstance(cell, str) else cell for cell in frame[column]]
    marked.columns = [str(column).replace("\r", mark) for column in frame.columns]
    text = str(marked.to_csv(index=False, lineterminator=LINE_END, float_format=float_format))
    return text.replace(mark, "\r")


def _holds_returns(cells: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(cells):
        return False
    return any("\r" in cell for cell in cells if isinstance(cell, str))


def _unused_character(frame: pd.DataFrame) -> str:
    texts = [column for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column])]
    used = set(chain.from_iterable(str(column) for column in frame.columns))
    for column in texts:
        used.update(*(cell for cell in frame[column] if isinstance(cell, str)))
    return next(chr(code) for code in _PRIVATE_USE if chr(code) not in used)
