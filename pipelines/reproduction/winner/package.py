"""`podium winner-package`: what Kaggle asks of winners, written from the record, with entry points that run."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from components.files.atomic import atomic_folder
from pipelines.errors import PodiumError
from pipelines.modes import warn_of_mode
from pipelines.reproduction.checkout import CompetitionFacts, ask_competition
from pipelines.reproduction.difference import Difference
from pipelines.reproduction.file_finder import FileFinder
from pipelines.reproduction.rebuilding import Source, explain_source, gather_run, rebuild_source
from pipelines.reproduction.winner.entry_points import ENTRY_POINTS, SETTINGS
from pipelines.reproduction.winner.texts import (
    render_entry_points,
    render_readme,
    render_requirements,
    render_structure,
    render_summary,
)
from pipelines.runs.source.state import hash_source
from pipelines.screen import say
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.submissions.writer import settle_here
from pipelines.workspace import Workspace

# Of the repository, what the entry points do not need.
LEFT_OUT = (".git", "tests", "benchmarks", "docs", ".ci", "ledger")
# Of the record, what is of no use elsewhere.
NOT_TOLD = ("tracking",)


def write_winner_package(
    workspace: Workspace,
    ref: str,
    *,
    weights: Sequence[Path] = (),
    into: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Write README.md, SETTINGS.json, entry_points.md, requirements.txt, scripts, summary, source and model of `ref`.

    `into` is a new folder; by default one under build/winner-package/. Raises `PodiumError`, with nothing half-written,
    where the source or a file of the model is not to be had as it was recorded.
    """
    settle_here(workspace)
    ledger = Ledger(workspace.ledger)
    record = ledger.find(ref)
    record.check_whole()
    target = into or workspace.build / "winner-package" / record.ref.replace(":", "-")
    if target.exists():
        raise PodiumError(f"{target}: is there already; remove it, or name another folder with --into")
    with atomic_folder(target.absolute()) as folder:
        source = record.source
        rebuild_source(workspace.root, ledger, record.ref, source, folder / "source")
        competition = ask_competition(folder / "source", record.competition)
        _must_be_equal(record.ref, source, hash_source(folder / "source"))
        for name in LEFT_OUT:
            shutil.rmtree(folder / "source" / name, ignore_errors=True)
        finder = FileFinder([*weights, workspace.runs])
        model = folder / "model" / record.run
        missing = gather_run(ledger, record, finder, workspace.runs, model)
        if missing is not None:
            raise PodiumError(f"{record.ref}: {missing}")
        _write_documents(folder, record, competition)
    if warning := warn_of_mode(str(record.mode)):
        say(f"{record.ref}: its run {record.run} is {warning}", console)
    say(f"{target}: read README.md, and answer MODEL_SUMMARY.md", console)
    return target


def _must_be_equal(ref: str, source: Source, sha256: str) -> None:
    if sha256 != source.source_sha256:
        raise PodiumError(f"{ref}: {Difference('source_sha256', source.source_sha256, sha256, explain_source(source))}")


def _write_documents(folder: Path, record: LedgerEntry, competition: CompetitionFacts) -> None:
    told = {name: value for name, value in record.entries().items() if name not in NOT_TOLD}
    told |= {"kaggle_slug": competition.slug}
    configuration = (folder / "model" / record.run / "config.yaml").read_text(encoding="utf-8")
    texts = {
        "README.md": render_readme(record, competition.title),
        "entry_points.md": render_entry_points(record),
        "MODEL_SUMMARY.md": render_summary(record, competition.title, configuration),
        "requirements.txt": render_requirements(folder / "source", record),
        "SETTINGS.json": _json(SETTINGS),
        "record.json": _json(told),
        **ENTRY_POINTS,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "directory_structure.txt").write_text(render_structure(folder), encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
