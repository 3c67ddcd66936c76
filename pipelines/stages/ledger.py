"""`podium ledger`: every submission on record, or one record line by line."""

from collections.abc import Iterator, Mapping

from rich.console import Console

from pipelines.adapters.ledger import Ledger, Record
from pipelines.config.workspace import Workspace
from pipelines.tables import Column, format_score, print_table


def list_submissions(workspace: Workspace, console: Console | None = None) -> None:
    """One line a submission, oldest first."""
    records = Ledger(workspace.ledger).records()
    print_table(
        console or Console(),
        [
            Column("ref", [record["ref"] for record in records]),
            Column("submitted (UTC)", [str(record["time"])[:16].replace("T", " ") for record in records]),
            Column("experiment", [record["experiment"] for record in records]),
            Column("run", [record["run"] for record in records]),
            Column("commit", [_commit(record) for record in records]),
            Column("public", [_score(record) for record in records], is_number=True),
        ],
    )


def show_submission(workspace: Workspace, ref: str) -> None:
    """The record, one line for each of its entries, in the order in which `podium reproduce` compares them."""
    for line, value in _flat(Ledger(workspace.ledger).find(ref)):
        print(f"{line}: {value}")


def _commit(record: Record) -> str:
    return str(record["commit"] or "none")[:12] + ("+" if record["diff"] else "")


def _score(record: Record) -> str:
    scores = list((record.get("public") or {}).values())
    return format_score(scores[0]) if scores else str(record.get("status", ""))


def _flat(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
