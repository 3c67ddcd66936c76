"""`podium train` and `podium resume`: from an experiment file to a finished run directory and its closing table."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from components.training.history import read_history
from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.local_host import LocalHost
from pipelines.competitions.prepare import prepare_missing
from pipelines.config.load import load_experiment, load_run_config
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError
from pipelines.interruption import way_on
from pipelines.learners.prompts import list_companion_texts
from pipelines.modes import warn_of_mode
from pipelines.runs.digests import check_run_file, list_missing
from pipelines.runs.fold_file import obtain_folds
from pipelines.runs.observer import Screen, StopWish
from pipelines.runs.processes import decide_together, is_main_process, join_processes
from pipelines.runs.record import RunStatus
from pipelines.runs.run import Run
from pipelines.screen import Column, format_bytes, format_duration, format_score, print_table, say
from pipelines.tracking.opening import open_tracker
from pipelines.tracking.tracker import NullTracker, Tracker
from pipelines.training.execution import carry_out, check_data, describe_run, sole_writer, start_run
from pipelines.training.training_run import RunContext
from pipelines.workspace import Workspace


def train(workspace: Workspace, name: str, overrides: Sequence[str] = (), *, mode: str | None = None) -> Run:
    """Train an experiment in a new run directory; see `RunContext`.

    `mode` is None, "smoke" (everything once, in seconds) or "overfit" (one batch, to a loss near zero). Raises
    PodiumError before anything is written when experiment, data or folds are wrong.
    """
    experiment = load_experiment(workspace, name, overrides, mode=mode)
    competition = load_competition(experiment.competition)
    if is_main_process():
        prepare_missing(workspace, competition)
    data_dir = workspace.data_dir(competition.kaggle_slug)
    join_processes(experiment)

    def start() -> Run:
        return start_run(
            workspace.runs,
            experiment,
            competition,
            data_dir,
            obtain_folds=lambda train_rows: obtain_folds(experiment, competition, train_rows, data_dir),
            also=list_companion_texts(workspace, experiment),
            mode=mode,
            say=Screen().say,
        )

    run = decide_together(start)
    return _carry_out(workspace, experiment, competition, run, mode, is_new=True)


def resume(workspace: Workspace, experiment_name: str | None, run_name: str | None) -> Run:
    """Go on with a run as if it had never stopped: the newest unfinished one of an experiment, or `run_name`."""
    run = _unfinished_run(workspace, experiment_name, run_name)
    with _resumable(run):
        return _resume(workspace, experiment_name, run)


def _resume(workspace: Workspace, experiment_name: str | None, run: Run) -> Run:
    record = run.read_record()
    check_run_file(run.path, record, run.config_file.name)
    experiment = load_run_config(run.path)
    if experiment_name is not None and experiment.name != experiment_name.replace("/", "_"):
        raise PodiumError(f"{run.path} is a run of {experiment.name}, not of {experiment_name}")
    competition = load_competition(experiment.competition)
    check_data(record, workspace.data_dir(competition.kaggle_slug), run)
    join_processes(experiment)
    # Large files are hashed by one process.
    decide_together(run.check_files)
    return _carry_out(workspace, experiment, competition, run, record.mode)


def _unfinished_run(workspace: Workspace, experiment: str | None, run_name: str | None) -> Run:
    if run_name is not None:
        run = Run.find(workspace.runs, run_name, may_be_damaged=True)
        _check_record(run)
        _refuse_finished(run)
        return Run(run.path)
    if experiment is None:
        raise PodiumError("name an experiment or a run: podium resume EXPERIMENT, or podium resume --run RUN")
    run = Run.newest_unfinished(workspace.runs, experiment)
    _check_record(run)
    return Run(run.path)


def _check_record(run: Run) -> None:
    """What else of a run is damaged is named, with its own cure, when it is read."""
    if run.record.status is RunStatus.DAMAGED:
        cure = "restore the file, or name another run with RUN="
        raise PodiumError(f"{run.damage}; {cure}")


# -- carrying it out -----------------------------------------------------------------------------------------------


def _carry_out(
    workspace: Workspace,
    experiment: Experiment,
    competition: Competition,
    run: Run,
    mode: str | None,
    *,
    is_new: bool = False,
) -> Run:
    screen = Screen(is_silent=not is_main_process())
    with sole_writer(run, screen.say):
        if not is_new:
            # Another resume may have finished it while this one was starting.
            decide_together(lambda: _refuse_finished(run))
        tracker = _open_tracker(workspace, experiment, competition, run, screen, is_new=is_new)
        context = _context_of(workspace, experiment, competition, run, tracker, screen, mode)
        screen.say(f"run {run.path}")
        _say_source(run, screen)
        _say_vocabulary(run, screen)
        with _resumable(run):
            metrics = carry_out(context)
    if context.is_main:
        with _resumable(run):
            _close(workspace, context, metrics, mode)
    return run


def _resumable(run: Run) -> AbstractContextManager[None]:
    return way_on(f"go on with: make resume RUN={run.path.name}")


def _refuse_finished(run: Run) -> None:
    """PodiumError where nothing is left to do: what a run had made and is gone, training makes again."""
    record = run.record
    if record.status is RunStatus.FINISHED and not list_missing(run.path, record):
        raise PodiumError(f"{run.path}: finished already; `make submit RUN={run.id}` is what comes next")


def _context_of(
    workspace: Workspace,
    experiment: Experiment,
    competition: Competition,
    run: Run,
    tracker: Tracker,
    screen: Screen,
    mode: str | None,
) -> RunContext:
    return RunContext(
        experiment=experiment,
        competition=competition,
        run=run,
        data_dir=workspace.data_dir(competition.kaggle_slug),
        tracker=tracker,
        screen=screen,
        stop_wish=StopWish(),
        is_main=is_main_process(),
        is_overfit=mode == "overfit",
    )


def _say_source(run: Run, screen: Screen) -> None:
    if problem := run.record.git_problem:
        screen.say(f"commit and changes of this checkout are not on record, for git says: {problem}")


def _say_vocabulary(run: Run, screen: Screen) -> None:
    made = run.record.vocabulary
    if made and made.num_pieces_untrimmed:
        screen.say(f"vocabulary trimmed from {made.num_pieces_untrimmed:,} to {made.num_pieces:,} pieces")


def _open_tracker(
    workspace: Workspace, experiment: Experiment, competition: Competition, run: Run, screen: Screen, *, is_new: bool
) -> Tracker:
    """Where the tracker cannot be opened, a new run leaves nothing behind, and one to resume stays as it was."""
    if not is_main_process():
        return NullTracker()
    try:
        return _tracker_of(workspace, experiment, competition, run, screen)
    except BaseException:
        if is_new:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _tracker_of(
    workspace: Workspace, experiment: Experiment, competition: Competition, run: Run, screen: Screen
) -> Tracker:
    record = run.read_record()
    tracker = open_tracker(
        experiment.tracking.name,
        workspace,
        competition=competition.kaggle_slug,
        run_name=f"{experiment.name} {run.path.name}",
        run_dir=run.path,
        resume_run_id=record.tracking.run_id if record.tracking else None,
        mode=record.mode_name,
        say=screen.say,
        **asdict(experiment.tracking),
    )
    try:
        describe_run(tracker, run, experiment, competition, workspace.data_dir(competition.kaggle_slug))
    except BaseException:
        tracker.finish("FAILED")
        raise
    return tracker


# -- the closing table ---------------------------------------------------------------------------------------------


def _close(workspace: Workspace, context: RunContext, metrics: Mapping[str, float], mode: str | None) -> None:
    record, screen = context.run.read_record(), context.screen
    console = screen.console
    say("", console)
    if mode == "overfit":
        _print_overfit(context)
    elif metrics:
        rows = _score_rows(metrics) + _baseline_rows(workspace, context.competition)
        names = list(rows[0][1])
        columns = [Column("", [label for label, _ in rows])]
        columns += [Column(n, [format_score(scores.get(n)) for _, scores in rows], is_number=True) for n in names]
        print_table(console, columns)
    screen.say(
        f"\n{context.experiment.name} on {context.competition.name}: {format_duration(record.wall_seconds)}, "
        f"{format_bytes(record.peak_memory_bytes)}\nrun    {context.run.path}\n{_what_next(context, mode)}"
    )


def _what_next(context: RunContext, mode: str | None) -> str:
    """The commands that follow; after a smoke or overfit run neither its submission nor its place among the runs."""
    name = context.experiment.name
    if mode is None:
        return f"next   make submit EXP={name}    make compare EXP={name}    make ui"
    return f"This was {warn_of_mode(mode)}.\nnext   make experiment EXP={name}    for a real run"


def _score_rows(metrics: Mapping[str, float]) -> list[tuple[str, dict[str, float]]]:
    """One row a fold, then their mean and the joined OOF where there are several folds."""
    labels = sorted({key.split("/")[0] for key in metrics}, key=lambda label: (label[:4] != "fold", label))
    folds = [label for label in labels if label.startswith("fold")]
    shown = folds if len(folds) == 1 else labels
    rows = []
    for label in shown:
        scores = {key.split("/", 1)[1]: value for key, value in metrics.items() if key.split("/")[0] == label}
        rows.append((f"{label} (validation)", scores))
    return rows


def _baseline_rows(workspace: Workspace, competition: Competition) -> list[tuple[str, dict[str, float]]]:
    """The embedded leaderboard's own rows; a Kaggle competition has none here."""
    folder = workspace.local_host(competition.kaggle_slug)
    if not (folder / "solution.csv").exists():
        return []
    return [(f"baseline {row.name} (public)", dict(row.public)) for row in LocalHost(folder, competition).baselines()]


def _print_overfit(context: RunContext) -> None:
    for path in sorted(context.run.path.glob("*/history.jsonl")):
        losses = [entry["train/loss"] for entry in read_history(path) if "train/loss" in entry]
        verdict = "learns its batch" if losses[-1] < 0.1 * losses[0] else "does NOT learn its batch"
        context.screen.say(f"{path.parent.name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}; the model {verdict}")
