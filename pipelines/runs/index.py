"""Finding runs again: what lies under runs/, which run an experiment's name means today, which one an id means."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.files.digests import check_file, check_seal
from components.files.json_lines import append_line, whole_lines
from pipelines.runs.digests import FILES
from pipelines.modes import REAL, name_mode, read_mode
from components.nearest import did_you_mean
from pipelines.errors import PodiumError

# Clocks of two machines may differ so much without one of them being wrong.
CLOCK_TOLERANCE = timedelta(hours=1)
UNKNOWN = "unknown"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """One run directory as its files tell it; a damaged one keeps its folder's names and says what is wrong with it.

    The manifest of a damaged run is empty unless run.json itself is sound.
    """

    folder: Path
    run: str
    experiment: str
    competition: str = ""
    status: str = "damaged"
    mode: str = UNKNOWN
    finished: str = ""
    started: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    damage: str = ""
    lost: str = ""
    """What is no longer there of what only tables show; the run still predicts."""

    @property
    def is_real(self) -> bool:
        """Neither a smoke run nor an overfit run, nor damaged."""
        return self.mode == REAL and not self.damage

    @property
    def trial(self) -> str:
        """ "a smoke run" or "an overfit run"; "" for a real one."""
        return name_mode(self.mode)

    @property
    def submission(self) -> Path:
        return self.folder / "submission.csv"

    @property
    def submissions(self) -> Path:
        """One JSON line per submission of this run, on any host."""
        return self.folder / "submissions.jsonl"


def load_record(folder: Path) -> RunRecord:
    """Read run.json and metrics.json of one run directory; never raises: a broken run must not hide the others.

    What the tables show of a run is held against its digests: its record, its scores and its configuration.
    """
    damaged = RunRecord(folder, run=folder.name, experiment=folder.parent.name)
    try:
        manifest = _load_manifest(folder / "run.json")
        mode = _load_mode(manifest, folder / "run.json")
    except ValueError as error:
        return replace(damaged, damage=str(error))
    damaged = replace(damaged, manifest=manifest, mode=mode)
    try:
        named, scores = manifest.get(FILES) or {}, folder / "metrics.json"
        for path in (folder / "config.yaml", *([scores] if scores.is_file() else [])):
            if path.name in named:
                check_file(path, named[path.name])
        metrics = _load_mapping(scores) if scores.is_file() else {}
        _read_submissions(damaged.submissions)
    except ValueError as error:
        return replace(damaged, damage=str(error))
    return RunRecord(
        folder,
        run=folder.name,
        experiment=str(manifest.get("experiment") or folder.parent.name),
        competition=str(manifest.get("competition", "")),
        status=str(manifest.get("status", "running")),
        mode=mode,
        started=str(manifest.get("started") or ""),
        finished=str(manifest.get("finished") or ""),
        manifest=manifest,
        metrics={key: float(value) for key, value in metrics.items() if isinstance(value, int | float)},
        lost=f"{scores}: missing" if scores.name in named and not scores.is_file() else "",
    )


def list_runs(runs: Path, experiment: str | None = None) -> list[RunRecord]:
    """All run directories under runs/ (of one experiment), oldest first; folders without a run.json are no runs."""
    records = [load_record(path.parent) for path in runs.glob("*/*/run.json")]
    if experiment is not None:
        records = [record for record in records if experiment in (record.experiment, record.folder.parent.name)]
    # A run's id begins with its UTC time.
    return sorted(records, key=lambda record: (record.run, record.experiment))


def find_run(runs: Path, name: str, *, may_be_damaged: bool = False) -> RunRecord:
    """The run of an id, of `<experiment>/<id>`, or of a path to its directory, whatever its state.

    Raises `PodiumError` when nothing or more than one run has this name, or when it is damaged and may not be.
    """
    folder = Path(name)
    if (folder / "run.json").is_file():
        found = load_record(folder.resolve())
        return found if may_be_damaged else _sound(found)
    records = list_runs(runs)
    matching = [record for record in records if name in (record.run, f"{record.experiment}/{record.run}")]
    if len(matching) > 1:
        choices = ", ".join(f"{record.experiment}/{record.run}" for record in matching)
        raise PodiumError(f"run {name}: the id names several runs: write one of {choices}")
    if not matching:
        hint = did_you_mean(name, [record.run for record in records], "`podium compare` lists the runs")
        raise PodiumError(f"run {name}: no such run under {runs}{hint}")
    return matching[0] if may_be_damaged else _sound(matching[0])


def newest_finished_run(runs: Path, experiment: str, *, mode: str = REAL) -> RunRecord:
    """What an experiment's name means where a run is wanted: its real run that finished last.

    A smoke run or an overfit run is meant only where its `mode` is asked for. A run that says it finished in the future
    comes behind the others, for a clock was wrong; a warning says so. Raises `PodiumError` when none has finished, and
    says what there is instead.
    """
    records = list_runs(runs, experiment)
    finished = [record for record in records if record.status == "finished" and record.mode == mode]
    if finished:
        newest = _last_finished(finished)
        # What would be meant if it were whole must not be passed over without a word.
        for record in records:
            if record.damage and record.mode in (mode, UNKNOWN) and record.run > newest.run:
                raise PodiumError(f"{record.damage}; to use the finished run before it: RUN={newest.run}")
        return newest
    if records:
        _sound(records[-1])
        raise PodiumError(f"experiment {experiment}: {_explain(records, experiment, mode)}")
    known = sorted({record.experiment for record in list_runs(runs)})
    hint = did_you_mean(experiment, known, f"run it first: make experiment EXP={experiment}")
    raise PodiumError(f"experiment {experiment}: no runs under {runs}{hint}")


def newest_unfinished_run(runs: Path, experiment: str) -> RunRecord:
    """The real run that `resume` goes on with where it is given an experiment's name: the newest that has not finished.

    It may be damaged. Raises `PodiumError` when there is none; an unfinished smoke or overfit run is named, not taken.
    """
    records = [r for r in list_runs(runs, experiment.replace("/", "_")) if r.manifest.get("status") != "finished"]
    real = [record for record in records if record.mode in (REAL, UNKNOWN)]
    if real:
        return real[-1]
    start = f"`make experiment EXP={experiment}` starts one"
    if not records:
        raise PodiumError(f"{experiment}: no unfinished run; {start}")
    trial = records[-1]
    raise PodiumError(
        f"{experiment}: no unfinished run but {trial.run}, {trial.trial}: `make resume RUN={trial.run}` goes on with "
        f"that one, {start} that is real"
    )


def run_of_name(runs: Path, name: str) -> RunRecord:
    """The run of an id, whatever its mode and state, or else what an experiment's name means."""
    if any(record.run == name for record in list_runs(runs)):
        return find_run(runs, name)
    return newest_finished_run(runs, name)


def _last_finished(records: Sequence[RunRecord]) -> RunRecord:
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    ahead = [record for record in records if _is_after(record.finished, latest)]
    believed = [record for record in records if record not in ahead] or ahead
    chosen = max(believed, key=lambda record: (record.finished, record.started, record.run))
    if ahead:
        strange = max(ahead, key=lambda record: record.finished)
        _log.warning(
            "%s: run %s says that it finished on %s, which is in the future: its machine's clock was wrong, or this "
            "one's is; %s is taken for the newest run, name another one with --run",
            chosen.experiment,
            strange.run,
            strange.finished,
            chosen.run,
        )
    return chosen


def _is_after(time: str, limit: datetime) -> bool:
    """Whether a time in ISO 8601 is later; what is no time is not."""
    try:
        moment = datetime.fromisoformat(time)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > limit
    except (ValueError, OverflowError):
        return False


def _explain(records: Sequence[RunRecord], experiment: str, mode: str) -> str:
    """Why none of these runs is meant, and what to do about it."""
    if mode != REAL:
        cure = f"make experiment EXP={experiment} {mode.upper()}=1"
        return f"none of its runs that have finished is {name_mode(mode)}; make one with: {cure}"
    unfinished = [record for record in records if record.is_real]
    start = f"make experiment EXP={experiment}"
    cure = f"make resume EXP={experiment}" if unfinished else start
    finished = [record for record in records if record.status == "finished"]
    if finished:
        newest = finished[-1]
        return (
            f"only smoke and overfit runs of it have finished (the newest, {newest.run}, is {newest.trial}), and its "
            f"name never means one of them; get a real run with: {cure}; or name that run itself: --run {newest.run} "
            f"(RUN={newest.run}, or run:{newest.run} as a checkpoint)"
        )
    if unfinished:
        newest = unfinished[-1]
        return f"none of its runs has finished (the newest, {newest.run}, is {newest.status}); finish it with: {cure}"
    newest = records[-1]
    kind = newest.damage or f"the newest, {newest.run}, is {newest.trial} and {newest.status}"
    return f"none of its runs has finished ({kind}); make a real one with: {start}"


def _sound(record: RunRecord) -> RunRecord:
    if record.damage:
        raise PodiumError(f"{record.damage}; restore the file or train again")
    return record


def _load_mode(manifest: Mapping[str, Any], path: Path) -> str:
    try:
        return read_mode(manifest)
    except PodiumError as error:
        raise ValueError(f"{path}: {error}") from None


def _load_manifest(path: Path) -> Mapping[str, Any]:
    manifest = _load_mapping(path)
    check_seal(manifest, path, is_required=FILES in manifest)
    for key in ("wall_seconds", "peak_memory_bytes"):
        value = manifest.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{path}: {key} is {str(value)[:40]!r}, which is no number")
    return manifest


def _load_mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: cannot be read (it is nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def load_submissions(record: RunRecord) -> list[dict[str, Any]]:
    """A run's submissions, oldest first, each in its latest state; a line cut off by a crash counts as not written.

    Raises PodiumError naming a whole line that is damaged.
    """
    try:
        return _read_submissions(record.submissions)
    except ValueError as error:
        raise PodiumError(f"{error}; put the file back from a copy, or delete the line") from None


def _read_submissions(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    lines = whole_lines(path)
    if lines and not lines[-1].rstrip().endswith("}"):  # a crash cut off the end of what was written last
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            latest[entry["host"], entry["ref"]] = entry
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}: line {number} is damaged (no submission)") from None
    return list(latest.values())


def append_submission(record: RunRecord, entry: Mapping[str, Any]) -> None:
    """Add one line; a later line with the same host and ref replaces what an earlier one says.

    Raises OSError, with nothing added, where the disk does not take it.
    """
    append_line(record.submissions, json.dumps(entry, ensure_ascii=False))
