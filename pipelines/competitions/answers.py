"""Answers in the columns a host scores: from predictions to a submission, and from two such tables to a metric's
arguments. A competition's task and metric decide the form: labels, probabilities, values or texts.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.metrics.table import METRICS
from pipelines.competitions.tasks import submits_grades
from pipelines.errors import PodiumError

DEFAULT_THRESHOLD = 0.5
WHOLE_FLOAT = re.compile(r"(?<=\d)\.0+$")
RANKED = "map_at_"  # metrics over ranked guesses, which Kaggle wants in one cell: "cat dog cow"


class AnswerRules(Protocol):
    """What decides the form of a competition's answers; see `Competition`, which is one."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def id_column(self) -> str: ...
    @property
    def input_columns(self) -> Sequence[str]: ...
    @property
    def label_columns(self) -> Sequence[str]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def class_columns(self) -> tuple[str, ...]: ...
    @property
    def metric_group(self) -> str | None: ...
    @property
    def reference_separator(self) -> str | None: ...
    @property
    def grades(self) -> tuple[int, int] | None: ...
    def frame_column(self, name: str) -> str: ...


def answer_columns(competition: AnswerRules, columns: Sequence[str]) -> list[str]:
    """Which of a table's columns hold answers, in its order: the label columns, or one probability per class.

    Kaggle's samples often have another name for the one answer (`prediction` where train says `label`): the only column
    beside the id, or beside the id and inputs, is it. Raises `PodiumError` when none of these fits.
    """
    wanted: Sequence[str] = competition.label_columns
    by_class = class_columns(competition)
    if by_class and has_probabilities(competition) and (set(by_class) <= set(columns) or not _has(columns, wanted)):
        wanted = by_class
    others = [column for column in columns if column != competition.id_column]
    known = {*competition.input_columns, competition.metric_group}
    for left in (others, [column for column in others if column not in known]):
        if len(left) == len(competition.label_columns) == 1 and not _has(columns, wanted):
            return left
    if missing := [column for column in wanted if column not in columns]:
        raise PodiumError(
            f"{competition.name}: no column {missing[0]} for the answers among {', '.join(columns)}; "
            "correct label_columns or class_names in the competition's file"
        )
    return [column for column in columns if column in set(wanted)]


def _has(columns: Sequence[str], wanted: Sequence[str]) -> bool:
    return set(wanted) <= set(columns)


def class_columns(competition: AnswerRules) -> tuple[str, ...]:
    """The columns of class probabilities in submissions, in the order of the classes; none but for multiclass."""
    return competition.class_columns or competition.class_names


def answers_are_numbers(competition: AnswerRules, columns: Sequence[str]) -> bool:
    """Whether answers in these columns are numbers; texts and names of classes ("007") are not, as digits may be."""
    if competition.task == "multiclass":
        return _are_probabilities(competition, columns)
    return competition.task != "text_to_text"


def numbers_where_all_are(cells: pd.Series) -> pd.Series:
    """A column of text as numbers, or as it is where a cell is no number."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return cells if numbers.isna().any() else numbers


def _are_probabilities(competition: AnswerRules, columns: Sequence[str]) -> bool:
    return set(columns) == set(class_columns(competition))


def has_probabilities(competition: AnswerRules) -> bool:
    """Whether the metric that decides scores probabilities, so that submissions hold them."""
    return METRICS[competition.metric].needs == "probabilities"


def fill_answers(
    competition: AnswerRules, predictions: pd.DataFrame, sample: pd.DataFrame, thresholds: Sequence[float] | None
) -> dict[str, Any]:
    """What to write into each answer column of the sample (which has no others here), row by row as in `predictions`.

    Raises `PodiumError` where such columns cannot hold these answers.
    """
    task, columns = competition.task, [str(column) for column in sample.columns]
    if task == "text_to_text":
        return {columns[0]: predictions["prediction"].to_numpy()}
    if task == "regression":
        values = predictions["prediction"].to_numpy()
        is_graded = submits_grades(task, competition.metric)
        return {columns[0]: whole_grades(values, competition.grades) if is_graded else values}
    if task == "multiclass":
        if _are_probabilities(competition, columns):
            names = dict(zip(class_columns(competition), competition.class_names, strict=True))
            return {column: predictions[f"proba_{names[column]}"].to_numpy() for column in columns}
        return {columns[0]: _named_classes(competition, predictions, sample[columns[0]])}
    sources = [competition.frame_column(column) for column in columns] if task == "multilabel" else ["prediction"]
    if has_probabilities(competition) and thresholds is None:
        return {column: predictions[name].to_numpy() for column, name in zip(columns, sources, strict=True)}
    cuts = [DEFAULT_THRESHOLD] * len(columns) if thresholds is None else thresholds
    return {
        column: (predictions[name].to_numpy() >= cut).astype(int)
        for column, name, cut in zip(columns, sources, cuts, strict=True)
    }


def whole_grades(values: NDArray[Any], grades: tuple[int, int] | None) -> NDArray[Any]:
    """Values as the nearest whole grades, halves to the even one as kappa has it, within the lowest and the highest.

    Values that are no finite numbers stay, for the check of the submission to name.
    """
    if not np.isfinite(values).all():
        return values
    nearest: NDArray[np.float64] = np.rint(values)
    if grades is not None:
        nearest = np.clip(nearest, *grades)
    return nearest.astype(np.int64)


def _named_classes(competition: AnswerRules, predictions: pd.DataFrame, cells: pd.Series) -> list[str]:
    """Names of classes for a sample that has one column for them."""
    if competition.metric.startswith(RANKED):
        return _ranked_names(competition, predictions)
    if has_probabilities(competition):
        raise PodiumError(
            f"{competition.name}: {competition.metric} scores a probability per class, but the sample has one column, "
            f"{cells.name}, for all; choose a metric of labels, or correct class_names or class_columns"
        )
    written = names_as_in_sample(competition, cells)
    return [written[name] for name in predictions["prediction"].astype(str)]


def names_as_in_sample(competition: AnswerRules, cells: pd.Series) -> dict[str, str]:
    """Class -> what to write for it: its name, or "2" for "2.0" where that is how the sample has its classes.

    Raises `PodiumError` where the sample's cells show that it does not ask for names of classes.
    """
    names = {name: name for name in competition.class_names}
    texts = list(dict.fromkeys(cells.astype(str)))
    if not texts or any(text in names for text in texts):
        return names
    are_words = all(number_of(name) is None for name in names)
    if are_words and any((number := number_of(text)) is not None and number % 1 != 0 for text in texts):
        raise PodiumError(
            f"{competition.name}: the sample answers with {texts[0]} in {cells.name}, a probability and no class "
            f"({', '.join(competition.class_names[:3])}); write 0 and 1 for the labels of train.csv, and make the task "
            "binary"
        )
    # As a column of floats shows whole numbers; codes such as "007" are no such numbers.
    whole = {name: WHOLE_FLOAT.sub("", name) for name in names if WHOLE_FLOAT.search(name)}
    known = set(whole.values())
    return whole if len(known) == len(names) and known.issuperset(texts) else names


def true_answers(competition: AnswerRules, truth: pd.DataFrame) -> dict[str, Any]:
    """Canonical labels in the columns a solution has; classes of a probability metric as one column each."""
    if competition.task == "multilabel":
        return {column: truth[competition.frame_column(column)].to_numpy() for column in competition.label_columns}
    labels = truth["label"].to_numpy()
    if competition.task == "multiclass" and has_probabilities(competition):
        columns = zip(class_columns(competition), competition.class_names, strict=True)
        return {column: (labels == name).astype(int) for column, name in columns}
    return {competition.label_columns[0]: labels}


def metric_arguments(
    competition: AnswerRules, needs: str, solution: pd.DataFrame, submission: pd.DataFrame
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


def class_names_of(competition: AnswerRules, cells: pd.Series) -> NDArray[Any]:
    """Cells as class names; numbers that went through a float column (2.0) find the name they had ("2").

    Cells that name no class, or whose value several classes have ("01" and "1"), stay as they are.
    """
    names: dict[str, str] = {name: name for name in competition.class_names}
    by_value: dict[Decimal, list[str]] = {}
    for name in competition.class_names:
        if (value := number_of(name)) is not None:
            by_value.setdefault(value, []).append(name)
    texts = cells.astype(str).tolist()
    for text in set(texts) - names.keys():
        value = number_of(text)
        known = [] if value is None else by_value.get(value, [])
        names[text] = known[0] if len(known) == 1 else text
    return _as_objects([names[text] for text in texts])


def number_of(text: str) -> Decimal | None:
    """The exact finite number that a text spells, beyond the digits that a float holds; None where it spells none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _class_arguments(
    competition: AnswerRules,
    needs: str,
    columns: Sequence[str],
    solution: pd.DataFrame,
    submission: pd.DataFrame,
) -> tuple[NDArray[Any], NDArray[Any]]:
    names = _as_objects(list(competition.class_names))
    truth = _true_names(competition, solution)
    if _are_probabilities(competition, columns):
        probabilities = _numbers(submission, class_columns(competition))
        if needs == "labels":
            return truth, names[probabilities.argmax(axis=1)]
        index = {name: number for number, name in enumerate(competition.class_names)}
        return np.array([index[name] for name in truth]), probabilities
    if competition.metric.startswith(RANKED):
        ranked = submission[columns[0]].astype(str)
        return (truth, _texts(ranked)) if needs == "probabilities" else (truth, _texts(ranked.str.split().str[0]))
    return truth, class_names_of(competition, submission[columns[0]])


def _true_names(competition: AnswerRules, solution: pd.DataFrame) -> NDArray[Any]:
    label, by_class = competition.label_columns[0], class_columns(competition)
    has_classes = _has(list(solution.columns), by_class)
    if label in solution.columns and not (label in by_class and has_classes):
        return class_names_of(competition, solution[label])
    best = _numbers(solution, by_class).argmax(axis=1)
    return _as_objects([competition.class_names[index] for index in best.tolist()])


def _ranked_names(competition: AnswerRules, predictions: pd.DataFrame) -> list[str]:
    names = competition.class_names
    if blank := [name for name in names if name.split() != [name]]:
        raise PodiumError(
            f"{competition.name}: class {blank[0]!r} holds a blank, which stands between the guesses that "
            f"{competition.metric} ranks; write such names without blanks in train.csv (ice_cream), as the host does"
        )
    num_guesses = int(competition.metric.removeprefix(RANKED))
    probabilities = predictions[[f"proba_{name}" for name in names]].to_numpy()
    # Stable, so that equal probabilities are listed in the order of the classes.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :num_guesses]
    return [" ".join(names[index] for index in row) for row in order]


def _references(competition: AnswerRules, cell: str) -> list[str]:
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
