"""`podium find-lr`: sweep the learning rate over one experiment's model and data, and leave no trace of it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from components.training.lr_finder import LrCurve
from pipelines.competitions.loading import load_competition
from pipelines.competitions.prepare import prepare_missing
from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.learners.figures import draw_lr_curve
from pipelines.learners.prompts import list_companion_texts
from pipelines.learners.registry import create_learner
from pipelines.runs.fold_file import obtain_folds
from pipelines.runs.lock import beginning
from pipelines.runs.observer import RunObserver, Screen, StopWish
from pipelines.runs.processes import tune
from pipelines.runs.run import new_run
from pipelines.screen import Column, print_table, say
from pipelines.tracking.tracker import NullTracker
from pipelines.training.training_run import fold_names, open_job
from pipelines.workspace import Workspace

SHOWN_RATES = 12


def sweep(workspace: Workspace, name: str, overrides: Sequence[str] = (), console: Console | None = None) -> LrCurve:
    """Print the losses over the rates and a suggestion, and draw them to build/find_lr/EXPERIMENT.png.

    Raises PodiumError for an experiment that has no rate to sweep.
    """
    from pipelines.learners.neural import NeuralLearner

    experiment = load_experiment(workspace, name, overrides)
    if experiment.optimizer is None:
        raise PodiumError(f"{name}: model {experiment.model.name} has no learning rate to find")
    tune(experiment)
    competition = load_competition(experiment.competition)
    prepare_missing(workspace, competition)
    data_dir = workspace.data_dir(competition.kaggle_slug)
    train = competition.load_train(data_dir)
    folds = obtain_folds(experiment, competition, train, data_dir)
    run = new_run(workspace.runs, experiment.name)
    with _told(name), beginning(run.path, Screen().say):
        learner = create_learner(experiment, competition, run)
        also = list_companion_texts(workspace, experiment)
        learner.prepare(train, competition.load_test(data_dir), also=also)
        observer = RunObserver(NullTracker(), Screen(), StopWish())
        fold = fold_names(experiment, folds)[0]
        job = open_job(experiment, run, fold, train, folds, observer)
        job.folder.mkdir()
        assert isinstance(learner, NeuralLearner)
        curve = learner.find_lr(job)
        shutil.rmtree(run.path)
    figure = draw_lr_curve(curve.lrs, curve.smoothed, curve.steepest_lr, workspace.build / f"find_lr/{name}.png")
    _print(curve, figure, console)
    return curve


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise PodiumError(f"{name}: {error}") from error


def _print(curve: LrCurve, figure: Path, console: Console | None) -> None:
    every = max(1, len(curve.lrs) // SHOWN_RATES)
    rows = list(zip(curve.lrs, curve.smoothed, strict=True))[::every]
    print_table(
        console,
        [
            Column("optimizer.lr", [f"{lr:.1e}" for lr, _ in rows], is_number=True),
            Column("loss", [f"{loss:.4f}" for _, loss in rows], is_number=True),
        ],
    )
    if curve.steepest_lr is None:
        say(f"the loss never fell from {curve.first_loss:.4f}; look at the data and the model", console)
    else:
        say(
            f"falls fastest at optimizer.lr={curve.steepest_lr:.1e}, is least at {curve.best_lr:.1e}; a warm-up from "
            f"random weights bears several times more\n{figure}",
            console,
        )
