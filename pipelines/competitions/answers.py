"""Answers in the columns a host scores: from predictions to a submission, and from two such tables to a metric's
arguments. A competition's task and metric decide the form: labels, probabilities, values or texts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.metrics import METRICS
from pipelines.errors import PodiumError

if TYPE_CHECKING:
    from pipelines.competitions.competition import Competition

DEFAULT_THRESHOLD = 0.5
RANKED = "map_at_"  # metrics over ranked guesses, which Kaggle wants in one cell: "cat dog cow"


def answer_columns(competition: "Competition", columns: Sequence[str]) -> list[str]:
    """Which of a table's columns hold answers, in its order: the label columns, or one probability per class.

    Kaggle's samples often have another name for the one answer (`prediction` where train says `label`): the only column
    beside the id is it. Raises `PodiumError` when none of these fits.
    """
    wanted: Sequence[str] = competition.label_columns
    if not set(wanted) <= set(columns) and competition.task == "multiclass" and has_probabilities(competition):
        wanted = competition.class_names
    others = [column for column in columns if column != competition.id_column]
    if len(others) == len(wanted) == 1:
        return others
    if missing := [column for column in wanted if column not in columns]:
        raise PodiumError(
            f"{competition.name}: no column {missing[0]} for the answers among {', '.join(columns)}; "
            "correct label_columns or class_names in the competition's file"
        )
    return [column for column in columns if column in set(wanted)]


def _are_probabilities(competition: "Competition", columns: Sequence[str]) -> bool:
    return set(columns) == set(competition.class_names)


def has_probabilities(competition: "Competition") -> bool:
    """Whether the metric that decides scores probabilities, so that submissions hold them."""
    return METRICS[competition.metric].needs == "probabilities"


def fill_answers(
    competition: "Competition", predictions: pd.DataFrame, columns: Sequence[str], thresholds: Sequence[float] | None
) -> dict[str, Any]:
    """What to write into each answer column, row by row as in `predictions`."""
    task = competition.task
    if task in ("text_to_text", "regression"):
        return {columns[0]: predictions["prediction"].to_numpy()}
    if task == "multiclass":
        if _are_probabilities(competition, columns):
            return {name: predictions[f"proba_{name}"].to_numpy() for name in columns}
        if competition.metric.startswith(RANKED):
            return {columns[0]: _ranked_names(competition, predictions)}
        return {columns[0]: predictions["prediction"].astype(str).to_numpy()}
    names = columns if task == "multilabel" else ["prediction"]
    if has_probabilities(competition) and thresholds is None:
        return {column: predictions[name].to_numpy() for column, name in zip(columns, names, strict=True)}
    cuts = [DEFAULT_THRESHOLD] * len(columns) if thresholds is None else thresholds
    return {
        column: (predictions[name].to_numpy() >= cut).astype(int)
        for column, name, cut in zip(columns, names, cuts, strict=True)
    }


def true_answers(competition: "Competition", truth: pd.DataFrame) -> dict[str, Any]:
    """Canonical labels in the columns a solution has; classes of a probability metric as one column each."""
    if competition.task == "multilabel":
        return {name: truth[name].to_numpy() for name in competition.label_columns}
    labels = truth["label"].to_numpy()
    if competition.task == "multiclass" and has_probabilities(competition):
        return {name: (labels == name).astype(int) for name in competition.class_names}
    return {competition.label_columns[0]: labels}


def metric_arguments(
    competition: "Competition", needs: str, solution: pd.DataFrame, submission: pd.DataFrame
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets and predictions in the form a metric needs; rows of both tables must already agree.

    Texts are returned as an array of reference lists and one of strings.
    """
    columns = answer_columns(competition, list(submission.columns))
    if len(columns) == len(competition.label_columns) == 1:
        submission = submission.rename(columns={columns[0]: competition.label_columns[0]})
        columns = list(competition.label_columns)
    if competition.task == "text_to_text":
        cells = solution[columns[0]].tolist()
        return _as_objects([_references(competition, str(cell)) for cell in cells]), _texts(submission[columns[0]])
    if competition.task == "multiclass":
        return _class_arguments(competition, needs, columns, solution, submission)
    targets, predictions = _numbers(solution, columns), _numbers(submission, columns)
    if needs == "labels" and competition.task != "regression":
        predictions = (predictions >= DEFAULT_THRESHOLD).astype(np.float64)
    if competition.task == "multilabel":
        return targets, predictions
    return targets[:, 0], predictions[:, 0]  # (N, 1) -> (N,)


def class_names_of(competition: "Competition", cells: pd.Series) -> NDArray[Any]:
    """Cells as class names; numbers that went through a float column (2.0) find the name they had ("2").

    Cells that name no class stay as they are.
    """
    texts = cells.astype(str).tolist()
    known = set(competition.class_names)
    by_value = {float(name): name for name in competition.class_names if _is_number(name)}
    return _as_objects(
        [text if text in known or not _is_number(text) else by_value.get(float(text), text) for text in texts]
    )


def _class_arguments(
    competition: "Competition",
    needs: str,
    columns: Sequence[str],
    solution: pd.DataFrame,
    submission: pd.DataFrame,
) -> tuple[NDArray[Any], NDArray[Any]]:
    names = _as_objects(list(competition.class_names))
    truth = _true_names(competition, solution)
    if _are_probabilities(competition, columns):
        probabilities = _numbers(submission, competition.class_names)
        if needs == "labels":
            return truth, names[probabilities.argmax(axis=1)]
        index = {name: number for number, name in enumerate(competition.class_names)}
        return np.array([index[name] for name in truth]), probabilities
    if competition.metric.startswith(RANKED):
        ranked = submission[columns[0]].astype(str)
        return (truth, _texts(ranked)) if needs == "probabilities" else (truth, _texts(ranked.str.split().str[0]))
    return truth, class_names_of(competition, submission[columns[0]])


def _true_names(competition: "Competition", solution: pd.DataFrame) -> NDArray[Any]:
    label = competition.label_columns[0]
    if label in solution.columns:
        return class_names_of(competition, solution[label])
    best = _numbers(solution, competition.class_names).argmax(axis=1)
    return _as_objects([competition.class_names[index] for index in best.tolist()])


def _ranked_names(competition: "Competition", predictions: pd.DataFrame) -> list[str]:
    names = competition.class_names
    num_guesses = int(competition.metric.removeprefix(RANKED))
    probabilities = predictions[[f"proba_{name}" for name in names]].to_numpy()
    # Stable, so that equal probabilities are listed in the order of the classes.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :num_guesses]
    return [" ".join(names[index] for index in row) for row in order]


def _references(competition: "Competition", cell: str) -> list[str]:
    return cell.split(competition.reference_separator) if competition.reference_separator else [cell]


def _numbers(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """(N, columns) floats; raises `PodiumError` naming the first cell that is none."""
    values = np.empty((len(frame), len(columns)))
    for place, column in enumerate(columns):
        values[:, place] = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        bad = np.isnan(values[:, place])
        if bad.any():
            row = int(bad.argmax())
            raise PodiumError(f"column {column}, row {row + 1}: {frame[column].iloc[row]!r} is not a number")
    return values


def _texts(cells: pd.Series) -> NDArray[Any]:
    return _as_objects([str(cell) for cell in cells])


def _as_objects(values: list[Any]) -> NDArray[Any]:
    """A one-dimensional object array, which numpy would not make of lists of one length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
