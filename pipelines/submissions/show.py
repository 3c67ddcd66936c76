"""`podium ledger`: every submission on record, or one record line by line."""

from collections.abc import Iterator, Mapping

from rich.console import Console

from pipelines.modes import REAL
from pipelines.screen import Column, format_score, print_table
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.submissions.writer import settle_here
from pipelines.workspace import Workspace


def list_submissions(workspace: Workspace, console: Console | None = None) -> None:
    """One line a submission, oldest first; a column says which are of smoke runs, where any is."""
    settle_here(workspace)
    records = Ledger(workspace.ledger).records()
    columns = [
        Column("ref", [record.ref for record in records]),
        Column("submitted (UTC)", [record.time[:16].replace("T", " ") for record in records]),
        Column("experiment", [record.experiment for record in records]),
        Column("run", [record.run for record in records]),
    ]
    modes = [record.mode or REAL for record in records]
    if set(modes) - {REAL}:
        columns.append(Column("mode", modes))
    columns += [
        Column("commit", [_commit(record) for record in records]),
        Column("public", [_score(record) for record in records], is_number=True),
    ]
    print_table(console or Console(), columns)


def show_submission(workspace: Workspace, ref: str) -> None:
    """The record, one line for each of its entries, in the order in which `podium reproduce` compares them."""
    settle_here(workspace)
    for line, value in _flat(Ledger(workspace.ledger).find(ref).entries()):
        print(f"{line}: {value}")


def _commit(record: LedgerEntry) -> str:
    return (record.commit or "none")[:12] + ("+" if record.diff else "")


def _score(record: LedgerEntry) -> str:
    scores = list(record.public.values())
    return format_score(scores[0]) if scores else record.status or ""


def _flat(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
