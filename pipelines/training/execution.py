"""Starting a run and carrying it out, whoever asks for it: the command line here, or a training kernel on Kaggle."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pandas import DataFrame

from components.files.atomic import write_text
from components.training.loop import Interrupted
from pipelines.competitions.competition import Competition
from pipelines.competitions.data_digests import digest_of, find_table_name, hash_data
from pipelines.competitions.grades import find_grades, with_grades
from pipelines.config.load import flatten, resolve_yaml
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError, explain_refusal
from pipelines.learners.registry import create_learner
from pipelines.runs.fold_file import Folds, hash_folds, read_folds, write_folds
from pipelines.runs.lock import beginning, locked_run
from pipelines.runs.processes import decide_together
from pipelines.runs.record import RunRecord, RunStatus
from pipelines.runs.run import Run, new_run, start_record
from pipelines.runs.source.machine import peak_memory_bytes
from pipelines.runs.source.state import read_source_state
from pipelines.screen import say
from pipelines.tracking.tracker import Tracker, tracking_record
from pipelines.training import prediction
from pipelines.training.answer_check import check_sample, check_scores
from pipelines.training.training_run import RunContext, fold_names, fold_numbers, train_run

ObtainFolds = Callable[[DataFrame], Folds]
# What a tracker calls the ends of a run.
ENDS = {RunStatus.FINISHED: "FINISHED", RunStatus.INTERRUPTED: "KILLED", RunStatus.FAILED: "FAILED"}


def start_run(
    runs: Path,
    experiment: Experiment,
    competition: Competition,
    data_dir: Path,
    *,
    obtain_folds: ObtainFolds,
    also: Sequence[str] = (),
    mode: str | None = None,
    say: Callable[[str], None] = say,
) -> Run:
    """A new run directory with all that its folds share: configuration, folds, vocabulary, run.json.

    `obtain_folds` gives the fold of each training row; `also` are texts a trimmed vocabulary must spell as well. Raises
    PodiumError, and leaves no directory behind, where data, folds or what the experiment asks for are wrong.
    """
    train_rows = competition.load_train(data_dir)
    test_rows = competition.load_test(data_dir, may_be_empty=True)
    # What is wrong with the sample, or keeps a metric from being computed, is better known now than after training.
    check_sample(competition, competition.load_sample(data_dir, may_be_empty=True), test_rows["id"])
    grades = find_grades(competition, train_rows)
    folds = obtain_folds(train_rows)
    if mode != "overfit":  # which is scored on the rows that it learns by heart
        numbers = fold_numbers(experiment, folds)
        check_scores(with_grades(competition, grades), experiment, train_rows, folds, numbers)
    run = new_run(runs, experiment.name)
    with _told(), beginning(run.path, say):
        write_folds(run.folds_file, train_rows, folds)
        write_text(run.config_file, resolve_yaml(experiment))
        prepared = create_learner(experiment, competition, run).prepare(train_rows, test_rows, also=also)
        record = RunRecord(
            run=run.id,
            experiment=experiment.name,
            competition=competition.name,
            mode=mode,
            seed=experiment.seed,
            data_sha256=hash_data(data_dir, competition),
            folds_sha256=hash_folds(train_rows, folds),
            fold_names=tuple(fold_names(experiment, folds)),
            num_train_rows=len(train_rows),
            grades=grades,
            **prepared,
        )
        start_record(run, record, read_source_state())
    return run


def check_data(record: RunRecord, data_dir: Path, run: Run) -> None:
    """PodiumError naming the file that is not the one a run started with."""
    recorded = record.data_sha256
    assert recorded is not None
    cure = f"or start a new run with make experiment EXP={record.experiment}"
    for name, digest in recorded.items():
        if digest_of(data_dir, name) != digest:
            what = "a file in it was changed, added or taken away" if name.endswith("/") else "changed"
            raise PodiumError(f"{name}: {what} since {run.path.name} started; put the former file back, {cure}")
        now = find_table_name(data_dir, name)
        if now not in recorded:
            raise PodiumError(
                f"{now}: is read now, where {name} was when {run.path.name} started; take {now} away, {cure}"
            )


@contextmanager
def sole_writer(run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block no other training writes this run; the main process holds the lock for all of them.

    To be entered before anything of the run is changed, its status included. Raises PodiumError, in every process,
    naming who is writing it already.
    """
    with ExitStack() as held:
        decide_together(lambda: held.enter_context(locked_run(run.path, say)))
        yield


def describe_run(tracker: Tracker, run: Run, experiment: Experiment, competition: Competition, data_dir: Path) -> None:
    """Note the tracker in run.json, and tell it what went in: parameters, configuration, versions, commit, data."""
    record = run.read_record()
    run.update_record(tracking=tracking_record(tracker), status=RunStatus.RUNNING)
    tracker.log_params(flatten(experiment))
    tracker.log_text(run.config_file.read_text(encoding="utf-8"), "config.yaml")
    tracker.log_text("\n".join(f"{name}=={number}" for name, number in (record.versions or {}).items()), "versions.txt")
    tracker.log_tags(
        {
            "competition": competition.name,
            "experiment": experiment.name,
            "run": run.path.name,
            "stage": "train",
            "mode": record.mode_name,
            "commit": record.commit or "none",
            "dirty": record.dirty_word,
            "folds_sha256": str(record.folds_sha256),
        }
    )
    if run.diff_file.exists():
        tracker.log_text(run.diff_file.read_text(encoding="utf-8"), "git.diff")
    for name, digest in (record.data_sha256 or {}).items():
        tracker.log_data(name.rstrip("/"), digest, data_dir / name)  # MLflow takes no name that ends in "/"


def carry_out(context: RunContext) -> dict[str, float]:
    """Train the folds that are not done yet and predict the test set; returns the scores.

    However it ends stands in run.json and in the tracker. Raises PodiumError with the way to go on.
    """
    context = replace(context, competition=with_grades(context.competition, context.run.read_record().grades))
    with context.stop_wish.listening(), _recorded(context):
        train_rows = context.competition.load_train(context.data_dir)
        sha256 = context.run.read_record().folds_sha256
        metrics = train_run(context, train_rows, read_folds(context.run.folds_file, train_rows, sha256=sha256))
        if context.is_main and not context.is_overfit:
            context.screen.say(f"predicting the test set of {context.competition.name}")
            prediction.main(context.run.path, context.data_dir, context.run.submission_file)
            context.tracker.log_artifact(context.run.submission_file)
    return metrics


@contextmanager
def _told() -> Iterator[None]:
    """What a component refuses before the first step, in its own words."""
    try:
        yield
    except ValueError as error:
        raise PodiumError(str(error)) from error


@contextmanager
def _recorded(context: RunContext) -> Iterator[None]:
    """Whatever happens within the block is the run's status in run.json and in the tracker."""
    started = time.monotonic()
    status, note = RunStatus.FINISHED, None
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        status = RunStatus.INTERRUPTED
        # A second Ctrl-C has no words of its own.
        reason = str(error) or "interrupted"
        raise PodiumError(f"{reason}; go on with: make resume RUN={context.run.path.name}") from error
    except BaseException as error:
        status, note = RunStatus.FAILED, f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError | FloatingPointError):
            raise PodiumError(f"{context.run.path.name}: {error}") from error
        if isinstance(error, OSError):
            again = f"go on with: make resume RUN={context.run.path.name}"
            raise PodiumError(explain_refusal(error, again)) from error
        raise
    finally:
        if context.is_main:
            _record_end(context, status, note, time.monotonic() - started)


def _record_end(context: RunContext, status: RunStatus, note: str | None, seconds: float) -> None:
    record = context.run.read_record()
    seconds += record.wall_seconds or 0.0
    memory = max(peak_memory_bytes(), record.peak_memory_bytes or 0)
    context.tracker.log_metrics({"time/wall_seconds": seconds, "memory/peak_bytes": float(memory)})
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        context.run.update_record(
            status=status, finished=finished, wall_seconds=seconds, peak_memory_bytes=memory, error=note
        )
    except OSError as error:
        context.screen.say(f"{context.run.record_file}: {error.strerror}; its status could not be written")
    context.tracker.finish(ENDS[status])
