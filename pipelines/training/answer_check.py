"""Whether answers can be scored and submitted, found before anything is trained.

A model that knows nothing answers every row, and its answers take the way of all others: into the sample's form, past
the checks of a submission, and through the metrics on every fold. What fails there fails for every model.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pandas import DataFrame, Series

from components.data.folds import train_valid_rows
from pipelines.competitions.competition import Competition
from pipelines.competitions.submission_file import SAMPLE_NAME, check_frame
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError
from pipelines.runs.fold_file import Folds
from pipelines.runs.scoring import EMPTY_GUESS, count_classes, frame_probabilities, frame_texts, score_predictions

MOST_CELLS = 1_000_000  # of the probabilities of all classes; any one row shows the form of an answer
MOST_TEXTS = 1_000


def check_sample(competition: Competition, sample: DataFrame, test_ids: Series | None = None) -> None:
    """Hold answers of a model that knows nothing against the sample; raises `PodiumError` where they do not fit.

    Every id of the sample must be one of `test_ids`. A sample without rows, as a hidden rerun may have, asks nothing.
    """
    if sample.empty:
        return
    if test_ids is not None:
        strangers = sample[competition.id_column][~sample[competition.id_column].isin(test_ids)]
        if not strangers.empty:
            raise PodiumError(
                f"{competition.name}: {SAMPLE_NAME}: {competition.id_column} {strangers.iloc[0]!r} is not in the test "
                f"table ({len(strangers)} such rows), so that nothing predicts it; get both files again"
            )
    asked = sample.head(_most_rows(competition))
    guesses = guess_blindly(competition, DataFrame({"id": asked[competition.id_column]}))
    submission = competition.to_submission(guesses, asked)
    check_frame(submission, asked, competition, source=f"{competition.name}: the answers for {SAMPLE_NAME}")


def check_scores(
    competition: Competition, experiment: Experiment, train: DataFrame, folds: Folds, numbers: Sequence[int]
) -> None:
    """Score a model that knows nothing on each fold that is to be trained, given by its number.

    Raises `PodiumError` naming the fold where a metric is not defined on its validation rows, such as AUC on rows of
    one class.
    """
    for name, valid in _validation_rows(experiment, train, folds, numbers):
        try:
            check_labels_can_be_scored(competition, valid)
        except PodiumError as error:
            raise PodiumError(
                f"{name}: {error}; nothing was trained: choose other folds (folds.name) or another metric"
            ) from None


def check_labels_can_be_scored(competition: Competition, truth: DataFrame) -> None:
    """Score a model that knows nothing on labelled canonical rows; raises `PodiumError` where a metric is undefined."""
    if competition.task in ("multiclass", "text_to_text"):
        truth = truth.head(_most_rows(competition))
    score_predictions(competition, truth, guess_blindly(competition, truth))


def guess_blindly(competition: Competition, frame: DataFrame) -> DataFrame:
    """Predictions of the rows of `frame` that know nothing about them, in the form that learners return."""
    width = count_classes(competition)
    if width is None:
        return frame_texts(frame, [EMPTY_GUESS] * len(frame), [0.0] * len(frame))
    return frame_probabilities(competition, frame, np.full((len(frame), width), 1 / max(width, 2)))


def _validation_rows(
    experiment: Experiment, train: DataFrame, folds: Folds, numbers: Sequence[int]
) -> Iterator[tuple[str, DataFrame]]:
    """The validation rows of each fold, and those that are scored between epochs where they are fewer."""
    for number in numbers:
        try:
            _, rows = train_valid_rows(folds, number, scheme=experiment.folds.name)
        except ValueError as error:
            raise PodiumError(f"{experiment.name}: {error}") from None
        valid = train.iloc[rows]
        yield f"fold{number}", valid
        limit = getattr(experiment.data, "max_valid_rows", None)
        if limit is not None and limit < len(valid):
            yield f"fold{number}, data.max_valid_rows={limit}", valid.sample(limit, random_state=experiment.seed)


def _most_rows(competition: Competition) -> int:
    if competition.task == "text_to_text":
        return MOST_TEXTS
    return max(1, MOST_CELLS // (count_classes(competition) or 1))
