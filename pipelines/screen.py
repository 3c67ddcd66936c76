"""All that podium prints: lines, and tables that fit a terminal's width and are plain aligned text elsewhere.

Results go to stdout, progress to stderr. A verb hands on the console that its caller gave it; None is stdout.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.memory.byte_sizes import format_bytes as format_bytes

MAX_CELL = 32
GAP = 2


@dataclass(frozen=True)
class Column:
    """A header and one cell per row; `best` rows are set off.

    `rank` 0 stays whatever the width; the others find room in the order of their ranks.
    """

    header: str
    cells: Sequence[str]
    is_number: bool = False
    best: Collection[int] = ()
    rank: int = 0

    @property
    def header_lines(self) -> str:
        """A dotted key on two lines, "optimizer." and "lr": half as wide, and still all of it."""
        section, dot, name = self.header.rpartition(".")
        return f"{section}{dot}\n{name}" if section else self.header

    @property
    def width(self) -> int:
        return max(min(cell_len(text), MAX_CELL) for text in (*self.header_lines.split("\n"), *self.cells))


def say(text: str | Text, console: Console | None = None, *, style: str = "") -> None:
    """Print one line, or several, letter for letter; only a terminal is given the style, and a bar to print above."""
    console = console or Console()
    if isinstance(text, str) and not console.is_terminal:
        _write(console, text + "\n")
    else:
        text = Text(text, style=style) if isinstance(text, str) else text
        console.print(text, highlight=False, soft_wrap=True)


def progress_console(*, is_silent: bool = False) -> Console:
    """Where progress is shown."""
    return Console(file=sys.stderr, quiet=is_silent)


def print_table(console: Console | None, columns: Sequence[Column], *, marked: Collection[int] = ()) -> list[str]:
    """Print the columns and return the headers of those that found no room.

    In a terminal columns go by their rank and long cells end in "…"; elsewhere everything is printed in full, under a
    header line, with two spaces between columns. `marked` rows are printed bold, or begin with "*".
    """
    console = console or Console()
    if not console.is_terminal:
        _write(console, _plain(columns, marked))
        return []
    shown = _fitting(columns, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold", show_edge=False)
    for column in shown:
        table.add_column(
            column.header_lines, vertical="bottom", justify="right" if column.is_number else "left", no_wrap=True
        )
    for row in range(len(columns[0].cells)):
        cells = (Text(_cut(column.cells[row]), style="green" if row in column.best else "") for column in shown)
        table.add_row(*cells, style="bold" if row in marked else None)
    console.print(table)
    return [column.header for column in columns if all(column is not other for other in shown)]


def _write(console: Console, text: str) -> None:
    """Past rich, which would take words between colons for pictures and tabs for spaces."""
    if not console.quiet:
        console.file.write(text)
        console.file.flush()


def format_duration(seconds: float | None) -> str:
    """380 -> "6m20s", 7500 -> "2h05m", 42.3 -> "42s"; "" for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_score(score: float | None) -> str:
    """Four digits after the point, as leaderboards show; "" for None."""
    return "" if score is None else f"{score:.4f}"


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Those of rank 0, then by rank whatever still fits, all in the order given."""
    chosen: set[int] = set()
    used = -GAP
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        needed = columns[place].width + GAP
        if columns[place].rank == 0 or used + needed <= width:
            chosen.add(place)
            used += needed
    return [column for place, column in enumerate(columns) if place in chosen]


def _plain(columns: Sequence[Column], marked: Collection[int]) -> str:
    widths = [max(map(cell_len, (column.header, *column.cells))) for column in columns]
    lines = [[column.header for column in columns]]
    lines += [[column.cells[row] for column in columns] for row in range(len(columns[0].cells))]
    text = ""
    for number, line in enumerate(lines):
        cells = [_aligned(cell, width, column) for cell, width, column in zip(line, widths, columns, strict=True)]
        mark = "*" if number - 1 in marked else " "
        text += ((mark + " " if marked else "") + (" " * GAP).join(cells)).rstrip() + "\n"
    return text


def _aligned(text: str, width: int, column: Column) -> str:
    filling = " " * (width - cell_len(text))
    return filling + text if column.is_number else text + filling


def _cut(text: str) -> str:
    return text if cell_len(text) <= MAX_CELL else set_cell_size(text, MAX_CELL - 1).rstrip() + "…"
