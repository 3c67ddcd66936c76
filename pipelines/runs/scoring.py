"""Predictions as frames, and their scores by the competition's own rule.

Frames of predictions have the column `id` and, by task: text_to_text `prediction` and `score` (mean log-probability of
the tokens); multiclass `prediction` and one `proba_<class>` a class; binary `prediction`, the probability of the
positive class; multilabel one probability a label column; regression `prediction`.
"""

from collections.abc import Sequence

import numpy as np
from pandas import DataFrame

from components.metrics.table import METRICS
from pipelines.competitions.competition import Competition

EMPTY_GUESS = "?"


def is_greater_better(competition: Competition) -> bool:
    """The direction of the deciding metric."""
    return METRICS[competition.metric].greater_is_better


def frame_texts(frame: DataFrame, texts: Sequence[str], scores: Sequence[float]) -> DataFrame:
    """Generated texts as predictions of the rows of `frame`.

    A model that says nothing, as an untrained one may, guesses `EMPTY_GUESS`: hosts refuse a file with empty cells.
    """
    filled = [text if text.strip() else EMPTY_GUESS for text in texts]
    return DataFrame({"id": frame["id"].to_numpy(), "prediction": filled, "score": list(scores)})


def frame_probabilities(competition: Competition, frame: DataFrame, values: np.ndarray) -> DataFrame:
    """Model outputs as predictions: (N, C) probabilities, (N, K) of labels, or (N,) / (N, 1) values."""
    ids = frame["id"].to_numpy()
    # One of several processes may have no row of a small table.
    width = -1 if len(frame) else count_classes(competition) or 1
    values = values.reshape(len(frame), width).astype(np.float64)
    if competition.task == "multilabel":
        columns = {name: values[:, index] for index, name in enumerate(competition.frame_labels)}
        return DataFrame({"id": ids, **columns})
    if competition.task == "multiclass":
        names = np.asarray(competition.class_names, dtype=object)
        probabilities = {f"proba_{name}": values[:, index] for index, name in enumerate(names)}
        return DataFrame({"id": ids, "prediction": names[values.argmax(1)], **probabilities})
    # The last column is the positive class of a binary task and the only one of a regression.
    return DataFrame({"id": ids, "prediction": values[:, -1]})


def encode_labels(competition: Competition, frame: DataFrame) -> list[str] | np.ndarray:
    """Labels as models learn them: texts, class indices (N,), 0/1 (N,) or (N, K), or values (N,)."""
    if competition.task == "multilabel":
        return frame[competition.frame_labels].to_numpy(np.float32)
    if competition.task == "text_to_text":
        return [str(label) for label in frame["label"]]
    if competition.task == "multiclass":
        indices = {name: index for index, name in enumerate(competition.class_names)}
        return np.array([indices[str(label)] for label in frame["label"]], dtype=np.int64)
    return frame["label"].to_numpy(np.int64 if competition.task == "binary" else np.float32)


def count_classes(competition: Competition) -> int | None:
    """The width of a classifier's logits; None for text."""
    widths = {
        "text_to_text": None,
        "regression": 1,
        "binary": 2,
        "multilabel": len(competition.label_columns),
        "multiclass": len(competition.class_names),
    }
    return widths[competition.task]


def score_predictions(competition: Competition, truth: DataFrame, predictions: DataFrame) -> dict[str, float]:
    """Scores of predictions for labelled, canonical rows, as the host would score the same rows; deciding one first."""
    solution = competition.to_solution(truth)
    submission = competition.to_submission(predictions, solution)
    return competition.score(solution, submission)
