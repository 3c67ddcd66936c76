"""Finding runs again: what lies under runs/, which run an experiment's name means today, which one an id means."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.files.digests import check_file, read_unsealed
from components.nearest import did_you_mean
from pipelines.errors import PodiumError
from pipelines.modes import REAL, name_mode
from pipelines.runs.digests import METRICS
from pipelines.runs.record import RUN_JSON, RunRecord, RunStatus
from pipelines.runs.submission import Submission

# Clocks of two machines may differ so much without one of them being wrong.
CLOCK_TOLERANCE = timedelta(hours=1)
UNKNOWN = "unknown"
SUBMISSIONS = "submissions.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A run directory as its files tell it. The record of a damaged run is a stub unless run.json itself is sound."""

    path: Path
    record: RunRecord
    metrics: Mapping[str, float] = field(default_factory=dict)
    damage: str = ""
    lost: str = ""
    """What is no longer there of what only tables show; the run still predicts."""

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def experiment(self) -> str:
        return self.record.experiment

    @property
    def mode(self) -> str:
        return self.record.mode_name

    @property
    def finished(self) -> str:
        """When it finished, as ISO 8601; "" where it has not."""
        return self.record.finished or ""

    @property
    def status(self) -> RunStatus:
        return RunStatus.DAMAGED if self.damage else self.record.status

    @property
    def is_real(self) -> bool:
        """Neither a smoke run nor an overfit run, nor damaged."""
        return self.mode == REAL and not self.damage


def look(path: Path) -> Found:
    """What the files of a run directory say; never raises: a broken run must not hide the others.

    What tables show of a run is held against its digests: its record, its scores and its configuration.
    """
    try:
        record = RunRecord.read(path / RUN_JSON)
    except PodiumError as error:
        stub = RunRecord(run=path.name, experiment=path.parent.name, status=RunStatus.DAMAGED, mode=UNKNOWN)
        return Found(path, stub, damage=str(error))
    try:
        named, scores = record.files_sha256 or {}, path / METRICS
        for file in (path / "config.yaml", *([scores] if scores.is_file() else [])):
            if file.name in named:
                check_file(file, named[file.name])
        metrics = read_unsealed(scores) if scores.is_file() else {}
        Submission.read_lines(path / SUBMISSIONS)
    except (ValueError, PodiumError) as error:
        return Found(path, record, damage=str(error))
    return Found(
        path,
        record,
        metrics={key: float(value) for key, value in metrics.items() if isinstance(value, int | float)},
        lost=f"{scores}: missing" if scores.name in named and not scores.is_file() else "",
    )


def list_runs(runs: Path, experiment: str | None = None) -> list[Found]:
    """All run directories under runs/ (of one experiment), oldest first; folders without a run.json are no runs."""
    records = [look(path.parent) for path in runs.glob("*/*/run.json")]
    if experiment is not None:
        records = [record for record in records if experiment in (record.experiment, record.path.parent.name)]
    # A run's id begins with its UTC time.
    return sorted(records, key=lambda record: (record.id, record.experiment))


def find_run(runs: Path, name: str, *, may_be_damaged: bool = False) -> Found:
    """The run of an id, of `<experiment>/<id>`, or of a path to its directory, whatever its state.

    Raises `PodiumError` when nothing or more than one run has this name, or when it is damaged and may not be.
    """
    folder = Path(name)
    if (folder / "run.json").is_file():
        found = look(folder.resolve())
        return found if may_be_damaged else _sound(found)
    records = list_runs(runs)
    matching = [record for record in records if name in (record.id, f"{record.experiment}/{record.id}")]
    if len(matching) > 1:
        choices = ", ".join(f"{record.experiment}/{record.id}" for record in matching)
        raise PodiumError(f"run {name}: the id names several runs: write one of {choices}")
    if not matching:
        hint = did_you_mean(name, [record.id for record in records], "`podium compare` lists the runs")
        raise PodiumError(f"run {name}: no such run under {runs}{hint}")
    return matching[0] if may_be_damaged else _sound(matching[0])


def newest_finished_run(runs: Path, experiment: str, *, mode: str = REAL) -> Found:
    """What an experiment's name means where a run is wanted: its real run that finished last.

    A smoke run or an overfit run is meant only where its `mode` is asked for. A run that says it finished in the future
    comes behind the others, for a clock was wrong; a warning says so. Raises `PodiumError` when none has finished, and
    says what there is instead.
    """
    records = list_runs(runs, experiment)
    finished = [record for record in records if record.status == RunStatus.FINISHED and record.mode == mode]
    if finished:
        newest = _last_finished(finished)
        # What would be meant if it were whole must not be passed over without a word.
        for record in records:
            if record.damage and record.mode in (mode, UNKNOWN) and record.id > newest.id:
                raise PodiumError(f"{record.damage}; to use the finished run before it: RUN={newest.id}")
        return newest
    if records:
        _sound(records[-1])
        raise PodiumError(f"experiment {experiment}: {_explain(records, experiment, mode)}")
    known = sorted({record.experiment for record in list_runs(runs)})
    hint = did_you_mean(experiment, known, f"run it first: make experiment EXP={experiment}")
    raise PodiumError(f"experiment {experiment}: no runs under {runs}{hint}")


def newest_unfinished_run(runs: Path, experiment: str) -> Found:
    """The real run that `resume` goes on with where it is given an experiment's name: the newest that has not finished.

    It may be damaged. Raises `PodiumError` when there is none; an unfinished smoke or overfit run is named, not taken.
    """
    records = [r for r in list_runs(runs, experiment.replace("/", "_")) if r.record.status != RunStatus.FINISHED]
    real = [record for record in records if record.mode in (REAL, UNKNOWN)]
    if real:
        return real[-1]
    start = f"`make experiment EXP={experiment}` starts one"
    if not records:
        raise PodiumError(f"{experiment}: no unfinished run; {start}")
    trial = records[-1]
    raise PodiumError(
        f"{experiment}: no unfinished run but {trial.id}, {trial.record.trial}: `make resume RUN={trial.id}` goes on with "
        f"that one, {start} that is real"
    )


def run_of_name(runs: Path, name: str) -> Found:
    """The run of an id, whatever its mode and state, or else what an experiment's name means."""
    if any(record.id == name for record in list_runs(runs)):
        return find_run(runs, name)
    return newest_finished_run(runs, name)


def _last_finished(records: Sequence[Found]) -> Found:
    latest = datetime.now(UTC) + CLOCK_TOLERANCE
    ahead = [record for record in records if _is_after(record.finished, latest)]
    believed = [record for record in records if record not in ahead] or ahead
    chosen = max(believed, key=lambda record: (record.finished, record.record.started or "", record.id))
    if ahead:
        strange = max(ahead, key=lambda record: record.finished)
        _log.warning(
            "%s: run %s says that it finished on %s, which is in the future: its machine's clock was wrong, or this "
            "one's is; %s is taken for the newest run, name another one with --run",
            chosen.experiment,
            strange.id,
            strange.finished,
            chosen.id,
        )
    return chosen


def _is_after(time: str, limit: datetime) -> bool:
    """Whether a time in ISO 8601 is later; what is no time is not."""
    try:
        moment = datetime.fromisoformat(time)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > limit
    except (ValueError, OverflowError):
        return False


def _explain(records: Sequence[Found], experiment: str, mode: str) -> str:
    """Why none of these runs is meant, and what to do about it."""
    if mode != REAL:
        cure = f"make experiment EXP={experiment} {mode.upper()}=1"
        return f"none of its runs that have finished is {name_mode(mode)}; make one with: {cure}"
    unfinished = [record for record in records if record.is_real]
    start = f"make experiment EXP={experiment}"
    cure = f"make resume EXP={experiment}" if unfinished else start
    finished = [record for record in records if record.status == RunStatus.FINISHED]
    if finished:
        newest = finished[-1]
        return (
            f"only smoke and overfit runs of it have finished (the newest, {newest.id}, is {newest.record.trial}), and its "
            f"name never means one of them; get a real run with: {cure}; or name that run itself: --run {newest.id} "
            f"(RUN={newest.id}, or run:{newest.id} as a checkpoint)"
        )
    if unfinished:
        newest = unfinished[-1]
        return f"none of its runs has finished (the newest, {newest.id}, is {newest.status}); finish it with: {cure}"
    newest = records[-1]
    kind = newest.damage or f"the newest, {newest.id}, is {newest.record.trial} and {newest.status}"
    return f"none of its runs has finished ({kind}); make a real one with: {start}"


def _sound(record: Found) -> Found:
    if record.damage:
        raise PodiumError(f"{record.damage}; restore the file or train again")
    return record
