"""What a competition is: its columns, its labels, its metric, its folds, and how predictions become a submission.

One file a competition in `catalogue/`, with the instance in `COMPETITION`; `loading` reads the folder as the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.metrics.table import METRICS, Metric
from components.nearest import did_you_mean
from pipelines.competitions.answers import (
    answer_columns,
    answers_are_numbers,
    fill_answers,
    metric_arguments,
    numbers_where_all_are,
    true_answers,
)
from pipelines.competitions.frame_columns import name_frame_columns
from pipelines.competitions.tables import check_ids, check_labels, find_table, load_table
from pipelines.competitions.tasks import TASKS, fitting_metrics, submits_grades
from pipelines.errors import PodiumError

HOSTS = ("local", "kaggle")

PromptBuilder = Callable[[Mapping[str, str]], str]


@dataclass(frozen=True)
class FoldDefaults:
    """How a competition's training rows are split unless an experiment says otherwise; None leaves the usual value."""

    name: str
    num_folds: int | None = None
    valid_fraction: float | None = None
    group_column: str | None = None
    time_column: str | None = None


@dataclass(frozen=True)
class ImagePlaces:
    """Where a competition's images lie, beside its tables: an input column, and what its cells stand for.

    In `train` and `test` {} is the cell: "train_images/{}", "test/{}.png", or "train_images.npy#{}" for a row of an
    array. The canonical column holds these places, whole paths.
    """

    column: str
    train: str
    test: str


@dataclass(frozen=True)
class PreparationFolders:
    """Where an embedded competition writes: what competitors see, and what only the local host reads."""

    data: Path
    local_host: Path


def join_columns(columns: Sequence[str], row: Mapping[str, str]) -> str:
    """The usual prompt: "premise: A man eats. hypothesis: Someone eats."."""
    return " ".join(f"{column}: {row[column]}" for column in columns)


def _own_columns(row: Mapping[str, str]) -> str:
    """Stands for `join_columns` over a competition's own inputs, until these are known."""
    raise AssertionError("replaced when the competition is made")


@dataclass(frozen=True)
class Competition:
    """One competition, in words that every stage understands; a contradiction between fields raises `PodiumError`."""

    name: str
    """The stem of its file, snake_case."""
    title: str
    task: str
    """binary (labels 0 and 1), multiclass, multilabel, regression or text_to_text."""
    kaggle_slug: str
    host: str
    """Where it is submitted by default: local or kaggle."""
    id_column: str
    input_columns: tuple[str, ...]
    label_columns: tuple[str, ...]
    """One column, but for multilabel."""
    metric: str
    """The metric that decides, a name in METRICS."""
    folds: FoldDefaults
    extra_metrics: tuple[str, ...] = ()
    metric_group: str | None = None
    """Every metric is the mean over the values of this column of its value there."""
    class_names: tuple[str, ...] = ()
    """Of multiclass, as they stand in the label column."""
    class_columns: tuple[str, ...] = ()
    """The sample's columns of the classes, in their order, where these have other names there ("Status_C" for "C")."""
    grades: tuple[int, int] | None = None
    """The lowest and the highest grade of a regression that labels score (qwk); train.csv's, unless given."""
    images: ImagePlaces | None = None
    """Where the images of an image competition lie."""
    test_role: str = "test"
    """The table that lists the test rows: test, or sample where the host has no other."""
    reference_separator: str | None = None
    """Between several correct answers in one cell of the solution."""
    reserved_pieces: tuple[str, ...] = ()
    """What a vocabulary must never cut, such as the language in a prompt."""
    build_prompt: PromptBuilder = _own_columns
    """A row's inputs as one text, for training and prediction alike; "column: value" pairs unless given."""
    prepare: Callable[[PreparationFolders], None] | None = None
    """Writes the data of a competition that travels in installed packages."""
    daily_limit: int = 5
    """Submissions a day, as Kaggle has them."""

    def __post_init__(self) -> None:
        if self.images is not None and self.images.column not in self.input_columns:
            raise PodiumError(f"{self.name}: images.column: {self.images.column!r} is none of input_columns")
        if self.build_prompt is _own_columns:
            object.__setattr__(self, "build_prompt", partial(join_columns, self.input_columns))
        _check_choice(self, "task", self.task, TASKS)
        _check_choice(self, "host", self.host, HOSTS)
        for name in (self.metric, *self.extra_metrics):
            _check_choice(self, "metric", name, METRICS)
            self._check_metric(METRICS[name])
        if (self.task == "multiclass") != bool(self.class_names):
            raise PodiumError(f"{self.name}: class_names: needed for multiclass, and for no other task")
        if (len(self.label_columns) != 1 and self.task != "multilabel") or not self.label_columns:
            raise PodiumError(f"{self.name}: label_columns: {self.task} takes one column, not {self.label_columns}")
        self._check_answers()

    def _check_answers(self) -> None:
        for name in self.label_columns:
            if name in (self.id_column, *self.input_columns):
                raise PodiumError(
                    f"{self.name}: label_columns: {name} is an input or the id as well, and a model would read its own "
                    "answers; leave it in one of them"
                )
        if self.class_columns and len(self.class_columns) != len(self.class_names):
            raise PodiumError(
                f"{self.name}: class_columns: {len(self.class_columns)} columns for {len(self.class_names)} "
                "class_names; name one for each, in the same order"
            )
        if self.grades is None:
            return
        if not submits_grades(self.task, self.metric):
            raise PodiumError(f"{self.name}: grades: only for a regression that a metric of labels scores, such as qwk")
        if len(self.grades) != 2 or self.grades[0] > self.grades[1]:
            raise PodiumError(f"{self.name}: grades: {self.grades} must be the lowest and the highest, as in (0, 4)")

    @property
    def frame_columns(self) -> dict[str, str]:
        """What inputs, columns to group by, and labels of multilabel are called in canonical frames, by file column."""
        special = (self.folds.group_column, self.folds.time_column, self.metric_group)
        return name_frame_columns(
            id_column=self.id_column,
            inputs=[*self.input_columns, *(name for name in special if name is not None)],
            labels=self.label_columns,
            is_multilabel=self.task == "multilabel",
            image_column=self.images.column if self.images is not None else None,
        )

    def frame_column(self, name: str) -> str:
        """The name of one of these columns in canonical frames; its own, unless that means something else there."""
        return self.frame_columns.get(name, name)

    def inputs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The input columns of canonical rows, under the names that the files give them."""
        names = self.frame_columns
        inputs = frame[[names[name] for name in self.input_columns]]
        return inputs.set_axis(list(self.input_columns), axis=1)

    @property
    def frame_labels(self) -> list[str]:
        """The columns of canonical frames that hold labels: `label`, or one each for a multilabel task."""
        names = self.frame_columns
        return [names[name] for name in self.label_columns] if self.task == "multilabel" else ["label"]

    def load_train(self, data_dir: Path) -> pd.DataFrame:
        """Training rows: `id`, the inputs as text, the labels, and the columns that folds and metric group by.

        The label is `label`: text, class name, 0/1 (int) or value (float); multilabel keeps its column names (floats).
        A column of the files that has one of these names for something else is renamed: see `frame_columns`. Raises
        `PodiumError` naming file, column and line for whatever a competition's own files should not hold.
        """
        path = find_table(data_dir, "train", self._cure)
        special = (self.folds.group_column, self.folds.time_column, self.metric_group)
        texts = dict.fromkeys([*self.input_columns, *(name for name in special if name is not None)])
        frame = load_table(path, needed=[self.id_column, *texts, *self.label_columns], cure=self._cure)
        check_ids(frame, self.id_column, path)
        labels = {name: check_labels(frame[name], self.task, self.class_names, path) for name in self.label_columns}
        names = self.frame_columns
        if self.task == "multilabel":
            labels = {names[name]: cells for name, cells in labels.items()}
        else:
            labels = {"label": labels[self.label_columns[0]]}
        inputs = {names[name]: self._inputs(frame, name, data_dir, "train") for name in texts}
        return pd.DataFrame({"id": frame[self.id_column], **inputs, **labels})

    def load_test(self, data_dir: Path, *, may_be_empty: bool = False) -> pd.DataFrame:
        """Test rows: `id` and the inputs as text. A hidden rerun may have none (`may_be_empty`)."""
        path = find_table(data_dir, self.test_role, self._cure)
        needed = [self.id_column, *self.input_columns]
        frame = load_table(path, needed=needed, cure=self._cure, may_be_empty=may_be_empty)
        check_ids(frame, self.id_column, path)
        names = self.frame_columns
        inputs = {names[name]: self._inputs(frame, name, data_dir, "test") for name in self.input_columns}
        return pd.DataFrame({"id": frame[self.id_column], **inputs})

    def _inputs(self, frame: pd.DataFrame, name: str, data_dir: Path, role: str) -> pd.Series:
        """A column's cells, or the places of the images that they name."""
        if self.images is None or name != self.images.column:
            return frame[name]
        pattern = str(data_dir / getattr(self.images, role))
        return frame[name].map(lambda cell: pattern.replace("{}", cell))

    def load_sample(self, data_dir: Path, *, may_be_empty: bool = False) -> pd.DataFrame:
        """The sample submission as the host ships it: all text, but for answers that are numbers.

        Raises `PodiumError` where its columns do not hold the answers of this competition.
        """
        path = find_table(data_dir, "sample", self._cure)
        frame = load_table(path, needed=[self.id_column], cure=self._cure, may_be_empty=may_be_empty)
        check_ids(frame, self.id_column, path)
        try:
            answers = answer_columns(self, [str(column) for column in frame.columns])
        except PodiumError as error:
            raise PodiumError(f"{path}: {error}") from None
        if not answers_are_numbers(self, answers):
            return frame
        return frame.assign(**{column: numbers_where_all_are(frame[column]) for column in answers})

    def to_submission(
        self, predictions: pd.DataFrame, sample: pd.DataFrame, *, thresholds: Sequence[float] | None = None
    ) -> pd.DataFrame:
        """Predictions in the rows and columns of `sample`, which may also be a solution.

        What a sample holds beside ids and answers is copied from it. Where the metric scores labels, probabilities of
        binary and multilabel are cut at one half, or at `thresholds`, one per label column (given, they make labels
        for any metric). Raises `PodiumError` for an id of the sample that was not predicted.
        """
        columns = [str(column) for column in sample.columns]
        answers = answer_columns(self, columns)
        wanted = sample[self.id_column].astype(str).tolist()
        rows = _locate(wanted, predictions["id"].astype(str).tolist(), "the predictions")
        filled = fill_answers(self, predictions.iloc[rows], sample[answers], thresholds)
        made: dict[str, Any] = {}
        for column in columns:
            if column == self.id_column:
                made[column] = wanted
            elif column in filled:
                made[column] = filled[column]
            elif column in self.copied_columns(columns):
                made[column] = sample[column].to_numpy()
        return pd.DataFrame(made)

    def copied_columns(self, columns: Sequence[str]) -> list[str]:
        """Which of a sample's columns are neither ids nor answers, so that a submission repeats its cells.

        A solution has the column that the metric groups by as well, which no submission holds unless it is an input.
        """
        others = {self.id_column, *answer_columns(self, columns)}
        if self.metric_group not in self.input_columns:
            others.add(str(self.metric_group))
        return [column for column in columns if column not in others]

    def to_solution(self, truth: pd.DataFrame) -> pd.DataFrame:
        """Labelled canonical rows in the host's columns, so that they are scored as the host scores its own."""
        columns: dict[str, Any] = {self.id_column: truth["id"].to_numpy(), **true_answers(self, truth)}
        if self.metric_group is not None:
            columns[self.metric_group] = truth[self.frame_column(self.metric_group)].to_numpy()
        return pd.DataFrame(columns)

    def score(self, solution: pd.DataFrame, submission: pd.DataFrame) -> dict[str, float]:
        """The metric that decides, then the extra ones; rows are matched by id.

        Raises `PodiumError` for an id without answer, and where a metric is undefined on these rows.
        """
        names = (self.metric, *self.extra_metrics)
        return {name: float(np.mean(list(self._by_group(name, solution, submission).values()))) for name in names}

    def score_by_group(
        self, solution: pd.DataFrame, submission: pd.DataFrame, *, metric: str | None = None
    ) -> dict[str, float]:
        """One metric (the deciding one) per value of `metric_group`, sorted; a single entry "all" without groups."""
        return self._by_group(metric or self.metric, solution, submission)

    def _by_group(self, name: str, solution: pd.DataFrame, submission: pd.DataFrame) -> dict[str, float]:
        ids = submission[self.id_column].astype(str).tolist()
        rows = _locate(solution[self.id_column].astype(str).tolist(), ids, "the submission")
        metric = METRICS[name]
        targets, predictions = metric_arguments(self, metric.needs, solution, submission.iloc[rows])
        scores = {}
        for group, members in self._members(solution).items():
            try:
                scores[group] = metric.function(targets[members], predictions[members])
            except ValueError as error:
                where = f" ({self.metric_group} {group})" if self.metric_group else ""
                raise PodiumError(f"{self.name}: {name} cannot be computed{where}: {error}") from error
        return scores

    def _members(self, solution: pd.DataFrame) -> dict[str, NDArray[np.int64]]:
        if self.metric_group is None:
            return {"all": np.arange(len(solution))}
        groups = solution[self.metric_group].astype(str).to_numpy()
        return {str(group): np.flatnonzero(groups == group) for group in sorted(set(groups.tolist()))}

    def _check_metric(self, metric: Metric) -> None:
        fitting = fitting_metrics(self.task)
        if metric.name not in fitting:
            raise PodiumError(
                f"{self.name}: metric: {metric.name} does not score {self.task}; use one of {', '.join(fitting)}"
            )
        decisive = METRICS[self.metric]
        if metric.needs == "probabilities" and decisive.needs != "probabilities":
            raise PodiumError(
                f"{self.name}: extra_metrics: {metric.name} needs probabilities, but {decisive.name} makes "
                "submissions hold labels; drop it, or choose a metric of probabilities"
            )

    @property
    def _cure(self) -> str:
        """What brings the files, for messages about missing or broken ones."""
        return f"podium data prepare {self.name}" if self.prepare else f"podium data download {self.kaggle_slug}"


def _check_choice(competition: Competition, key: str, value: str, known: Mapping[str, object] | Sequence[str]) -> None:
    if value not in known:
        hint = did_you_mean(value, list(known))
        raise PodiumError(f"{competition.name}: {key}: {value!r} is unknown{hint}; use one of {', '.join(known)}")


def _locate(wanted: Sequence[str], present: Sequence[str], what: str) -> list[int]:
    """The row of each wanted id."""
    rows = {row_id: row for row, row_id in enumerate(present)}
    missing = [row_id for row_id in wanted if row_id not in rows]
    if missing:
        raise PodiumError(f"{what}: {len(missing)} of {len(wanted)} ids are missing, the first is {missing[0]}")
    if len(rows) < len(present):
        twice = next(row_id for row, row_id in enumerate(present) if rows[row_id] != row)
        raise PodiumError(f"{what}: id {twice} stands there twice; keep one row per id")
    return [rows[row_id] for row_id in wanted]
