"""One run: folds in turn, out-of-fold predictions, scores. Resuming is running again over what is there already."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from components.data.folds import train_valid_rows
from components.files.atomic import write_json
from components.training.history import read_history
from components.training.loop import Interrupted
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.learners.figures import draw_curves, draw_scores
from pipelines.learners.learner import FoldJob, Learner
from pipelines.learners.registry import create_learner
from pipelines.learners.text_limits import say_limits
from pipelines.runs.digests import RESULT, digest_fold, read_result
from pipelines.runs.fold_file import Folds
from pipelines.runs.folds import FULL_FIT, name_folds
from pipelines.runs.observer import RunObserver, Screen, StopWish
from pipelines.runs.record import FoldResult
from pipelines.runs.run import Run, write_parquet
from pipelines.runs.scoring import score_predictions
from pipelines.tracking.tracker import Tracker


@dataclass(frozen=True)
class RunContext:
    """What a run is about and who watches it."""

    experiment: Experiment
    competition: Competition
    run: Run
    data_dir: Path
    tracker: Tracker
    screen: Screen
    stop_wish: StopWish
    is_main: bool = True
    is_overfit: bool = False


def train_run(context: RunContext, train: DataFrame, folds: Folds) -> dict[str, float]:
    """Train what `fold` asks for, write `oof.parquet` and `metrics.json`, and return the scores."""
    learner = create_learner(context.experiment, context.competition, context.run)
    _say_skipped(context)
    say_limits(context.run.read_record(), context.tracker, context.screen)
    is_baseline = context.experiment.training is None
    if is_baseline:
        context.stop_wish.answer = "interrupted: this fold is fitted to its end first; a second Ctrl-C stops at once"
    for number, name in enumerate(fold_names(context.experiment, folds)):
        # What trains step by step asks by itself.
        if is_baseline and number and context.stop_wish.is_set:
            raise Interrupted(f"stopped before {name}")
        _train_fold(context, learner, name, train, folds)
    if not context.is_main:
        return {}
    return _summarise(context, train, folds)


def _say_skipped(context: RunContext) -> None:
    """Images that cannot be used, where the experiment has any images."""
    images = context.run.read_record().images
    for role, number in (images.num_skipped if images else {}).items():
        context.tracker.log_metrics({f"data/num_skipped_{role}": float(number)})
        if number:
            context.screen.say(f"{number} {role} images cannot be used and are skipped; run.json names them")


def fold_names(experiment: Experiment, folds: Folds) -> list[str]:
    """The folders of the folds to train: `fold0`, `fold1`, … or `full`."""
    return name_folds(experiment.fold, int(folds.max()) + 1)


def fold_numbers(experiment: Experiment, folds: Folds) -> list[int]:
    """The folds to train and to validate; none where all rows are trained on."""
    return [int(name.removeprefix("fold")) for name in fold_names(experiment, folds) if name != FULL_FIT]


def _train_fold(context: RunContext, learner: Learner, name: str, train: DataFrame, folds: Folds) -> None:
    folder = context.run.fold(name)
    if (folder / RESULT).exists():
        if context.is_main:
            context.run.note_files(folder / RESULT)  # a kill may have come before this
        return
    if f"{name}/{RESULT}" in (context.run.read_record().files_sha256 or {}):
        context.screen.say(f"{folder / RESULT}: missing, though run.json names it; {name} is trained to its end again")
    tracker = context.tracker.child(name)
    tracker.log_tags({"mode": context.run.read_record().mode_name})
    observer = RunObserver(tracker, context.screen, context.stop_wish)
    job = open_job(context.experiment, context.run, name, train, folds, observer)
    if context.is_overfit:
        job = replace(job, valid=job.train)
    folder.mkdir(parents=True, exist_ok=True)
    result = learner.fit(job)
    if context.is_main:
        scores = _predict_oof(context, learner, job, result.checkpoint)
        tracker.log_metrics(scores)
        if figure := draw_curves(read_history(folder / "history.jsonl"), context.run.figures / f"{name}_curves.png"):
            tracker.log_artifact(figure, "figures")
        for figure in learner.draw_figures(job, folder / result.checkpoint, context.run.figures):
            tracker.log_artifact(figure, "figures")
        made = FoldResult(
            checkpoint=result.checkpoint,
            num_steps=result.num_steps,
            scores=scores,
            files_sha256=digest_fold(folder, result.checkpoint),
        )
        result.tidy()
        # Written last: a fold with a result is done and is never trained again.
        made.write(folder / RESULT)
        context.run.note_files(folder / RESULT)
        tracker.finish("FINISHED")
    _wait()


def open_job(
    experiment: Experiment, run: Run, name: str, train: DataFrame, folds: Folds, observer: RunObserver
) -> FoldJob:
    """The training of one fold: its rows, its folder, its seed."""
    fold_train, fold_valid = _split(experiment, name, train, folds)
    return FoldJob(
        name=name,
        folder=run.fold(name),
        train=fold_train,
        valid=fold_valid,
        seed=experiment.seed * 1000 + (0 if name == FULL_FIT else 1 + int(name.removeprefix("fold"))),
        observer=observer,
    )


def _split(experiment: Experiment, name: str, train: DataFrame, folds: Folds) -> tuple[DataFrame, DataFrame | None]:
    if name == FULL_FIT:
        return _limited(experiment, train), None
    train_rows, valid_rows = train_valid_rows(folds, int(name.removeprefix("fold")), scheme=experiment.folds.name)
    return _limited(experiment, train.iloc[train_rows]), train.iloc[valid_rows]


def _limited(experiment: Experiment, rows: DataFrame) -> DataFrame:
    limit = getattr(experiment.data, "max_train_rows", None)
    return rows if limit is None or limit >= len(rows) else rows.sample(limit, random_state=experiment.seed)


def _predict_oof(context: RunContext, learner: Learner, job: FoldJob, checkpoint: str) -> dict[str, float]:
    if job.valid is None:
        return {}
    context.screen.say(f"{job.name}  predicting {len(job.valid)} validation rows")
    predictions = learner.predict([job.folder / checkpoint], job.valid)
    scores = score_predictions(context.competition, job.valid, predictions)
    inputs = {context.competition.frame_column(column) for column in context.competition.input_columns}
    labels = [column for column in job.valid if column not in {"id", *inputs}]
    truth = job.valid[labels].reset_index(drop=True).add_prefix("true_")
    write_parquet(pd.concat([predictions, truth], axis=1), job.folder / "oof.parquet")
    return scores


def _summarise(context: RunContext, train: DataFrame, folds: Folds) -> dict[str, float]:
    """Join the folds' predictions in the order of the training rows, and score them."""
    names = [name for name in fold_names(context.experiment, folds) if name != FULL_FIT]
    metrics: dict[str, float] = {}
    if names:
        parts = [pd.read_parquet(context.run.fold(name) / "oof.parquet").assign(fold=name) for name in names]
        position = {row_id: index for index, row_id in enumerate(train["id"])}
        oof = pd.concat(parts, ignore_index=True)
        oof = oof.iloc[np.argsort([position[row_id] for row_id in oof["id"]])].reset_index(drop=True)
        write_parquet(oof, context.run.oof_file)
        truth = train.iloc[[position[row_id] for row_id in oof["id"]]]
        metrics = _collect_scores(context, names) | {
            f"oof/{name}": value for name, value in score_predictions(context.competition, truth, oof).items()
        }
        context.tracker.log_artifact(context.run.oof_file)
        figure = draw_scores(metrics, context.competition, context.run.figures / "folds.png")
        context.tracker.log_artifact(figure, "figures")
    write_json(context.run.metrics_file, metrics)
    context.run.note_files(context.run.oof_file, context.run.metrics_file)
    # A fold's own scores are on its nested run.
    context.tracker.log_metrics({name: value for name, value in metrics.items() if not name.startswith("fold")})
    return metrics


def _collect_scores(context: RunContext, names: Iterable[str]) -> dict[str, float]:
    record = context.run.read_record()
    scores = {name: read_result(context.run.path, record, name).scores for name in names}
    metrics = {f"{name}/{metric}": value for name, values in scores.items() for metric, value in values.items()}
    for metric in next(iter(scores.values())):
        values = [values[metric] for values in scores.values()]
        metrics[f"cv/{metric}"] = float(np.mean(values))
        if len(values) > 1:
            metrics[f"cv/{metric}_std"] = float(np.std(values, ddof=1))
    return metrics


def _wait() -> None:
    """All processes meet here; alone, nothing happens."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()
