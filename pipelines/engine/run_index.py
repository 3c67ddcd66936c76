"""Finding runs again: what lies under runs/, which run an experiment's name means today, which one an id means."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import PodiumError


@dataclass(frozen=True)
class RunRecord:
    """One run directory as its files tell it; a damaged one keeps its folder's names and says what is wrong with it."""

    folder: Path
    run: str
    experiment: str
    competition: str = ""
    status: str = "damaged"
    finished: str = ""
    started: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    damage: str = ""

    @property
    def submission(self) -> Path:
        return self.folder / "submission.csv"

    @property
    def submissions(self) -> Path:
        """One JSON line per submission of this run, on any host."""
        return self.folder / "submissions.jsonl"


def load_record(folder: Path) -> RunRecord:
    """Read run.json and metrics.json of one run directory; never raises: a broken run must not hide the others."""
    try:
        manifest = _load_mapping(folder / "run.json")
        metrics = _load_mapping(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    except ValueError as error:
        return RunRecord(folder, run=folder.name, experiment=folder.parent.name, damage=str(error))
    return RunRecord(
        folder,
        run=folder.name,
        experiment=str(manifest.get("experiment") or folder.parent.name),
        competition=str(manifest.get("competition", "")),
        status=str(manifest.get("status", "running")),
        started=str(manifest.get("started") or ""),
        finished=str(manifest.get("finished") or ""),
        manifest=manifest,
        metrics={key: float(value) for key, value in metrics.items() if isinstance(value, int | float)},
    )


def list_runs(runs: Path, experiment: str | None = None) -> list[RunRecord]:
    """All run directories under runs/ (of one experiment), oldest first; folders without a run.json are no runs."""
    records = [load_record(path.parent) for path in runs.glob("*/*/run.json")]
    if experiment is not None:
        records = [record for record in records if experiment in (record.experiment, record.folder.parent.name)]
    # A run's id begins with its UTC time.
    return sorted(records, key=lambda record: (record.run, record.experiment))


def find_run(runs: Path, name: str) -> RunRecord:
    """The run of an id, of `<experiment>/<id>`, or of a path to its directory, whatever its state.

    Raises `PodiumError` when nothing or more than one run has this name, or when it is damaged.
    """
    folder = Path(name)
    if (folder / "run.json").is_file():
        return _sound(load_record(folder.resolve()))
    records = list_runs(runs)
    matching = [record for record in records if name in (record.run, f"{record.experiment}/{record.run}")]
    if len(matching) > 1:
        choices = ", ".join(f"{record.experiment}/{record.run}" for record in matching)
        raise PodiumError(f"run {name}: the id names several runs: write one of {choices}")
    if not matching:
        near = difflib.get_close_matches(name, [record.run for record in records], n=1)
        hint = f"did you mean {near[0]}?" if near else "`podium compare` lists the runs"
        raise PodiumError(f"run {name}: no such run under {runs}; {hint}")
    return _sound(matching[0])


def newest_finished_run(runs: Path, experiment: str) -> RunRecord:
    """What an experiment's name means where a run is wanted: its run that finished last.

    Raises `PodiumError` when none has finished, and says what there is instead.
    """
    records = list_runs(runs, experiment)
    finished = [record for record in records if record.status == "finished"]
    if finished:
        return max(finished, key=lambda record: (record.finished, record.started, record.run))
    if records:
        newest = records[-1]
        raise PodiumError(
            f"experiment {experiment}: none of its runs has finished (the newest, {newest.run}, is "
            f"{newest.status}); finish it with: make resume EXP={experiment}"
        )
    known = sorted({record.experiment for record in list_runs(runs)})
    near = difflib.get_close_matches(experiment, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"run it first: make experiment EXP={experiment}"
    raise PodiumError(f"experiment {experiment}: no runs under {runs}; {hint}")


def _sound(record: RunRecord) -> RunRecord:
    if record.damage:
        raise PodiumError(f"{record.damage}; restore the file or train again")
    return record


def _load_mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def load_submissions(record: RunRecord) -> list[dict[str, Any]]:
    """A run's submissions, oldest first, each in its latest state; a line cut off by a crash counts as not written."""
    if not record.submissions.is_file():
        return []
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    for line in record.submissions.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        latest[entry["host"], entry["ref"]] = entry
    return list(latest.values())


def append_submission(record: RunRecord, entry: Mapping[str, Any]) -> None:
    """Add one line; a later line with the same host and ref replaces what an earlier one says."""
    with record.submissions.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
