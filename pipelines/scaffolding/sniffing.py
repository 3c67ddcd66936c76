"""Reads the CSV files of a Kaggle competition and infers its contract: id, inputs, labels, task, metric and folds.

Every decision carries its reason, which `podium new competition` prints and writes beside the decision; where the
files allow two readings, the error names the flag that decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.metrics.table import METRICS
from pipelines.competitions.kaggle_files import KaggleFiles
from pipelines.competitions.tasks import TASKS, fitting_metrics
from pipelines.errors import PodiumError
from pipelines.scaffolding.sample_columns import asked_columns, find_classes

NUM_FOLDS = 5
SURE_CLASSES = 20  # so many distinct whole numbers are classes; up to MAX_CLASSES they may be either
MAX_CLASSES = 200
ZERO_OR_ONE = ("0", "1", "0.0", "1.0")
GROUP_ENDINGS = ("id", "group", "user", "patient", "subject", "session", "customer", "store")


@dataclass(frozen=True)
class CompetitionDraft:
    """What a competition file will say; `reasons` holds a sentence for each of its decisions, `hints` the doubts."""

    kaggle_slug: str
    task: str
    id_column: str
    input_columns: tuple[str, ...]
    label_columns: tuple[str, ...]
    class_names: tuple[str, ...]
    class_columns: tuple[str, ...]
    metric: str
    folds: str
    reasons: dict[str, str]
    hints: tuple[str, ...]


def sniff_competition(
    data_dir: Path,
    kaggle_slug: str,
    *,
    id_column: str | None = None,
    label: str | None = None,
    task: str | None = None,
    metric: str | None = None,
) -> CompetitionDraft:
    """Infers the contract from train, test and sample submission in `data_dir`; what is given is not guessed.

    `label` may name several columns, separated by commas. Raises PodiumError for a missing file or column, for
    duplicate ids, and where the files do not say.
    """
    files = KaggleFiles(data_dir)
    id_column, id_reason = _find_id(files, id_column)
    labels, label_reason = _find_labels(files, id_column, label)
    classes = find_classes(files, asked_columns(files, id_column, labels), labels[0]) if len(labels) == 1 else None
    task, task_reason = _find_task(files, id_column, labels, task, has_class_columns=classes is not None)
    if task != "multiclass":
        classes = None
    class_names = (_class_names(files, labels[0]) if classes is None else classes.names) if task == "multiclass" else ()
    inputs, input_reason = _find_inputs(files, id_column, labels)
    metric, metric_reason = _find_metric(files, id_column, labels, task, metric, has_class_columns=classes is not None)
    folds, folds_reason = _find_folds(files, labels, task)
    reasons = {
        "id_column": id_reason,
        "input_columns": input_reason,
        "label_columns": label_reason,
        "task": task_reason,
        "metric": metric_reason,
        "folds": folds_reason,
    }
    hints = (*_label_hints(files, id_column, labels, task), *_group_hints(files, (id_column, *labels)))
    columns = classes.columns if classes is not None and classes.columns != class_names else ()
    return CompetitionDraft(
        kaggle_slug, task, id_column, inputs, labels, class_names, columns, metric, folds, reasons, hints
    )


def _find_id(files: KaggleFiles, given: str | None) -> tuple[str, str]:
    if given is not None:
        name, reason = given, "as given by --id"
    else:
        shared = [name for name in files.columns["sample"] if name in files.columns["test"]]
        if not shared:
            raise _unclear(files, "no column of the sample submission stands in test", "--id COLUMN")
        name, reason = shared[0], "the first column of the sample submission that test has as well"
        if len(shared) > 1 and (first := files.columns["test"][0]) in shared[1:]:
            name, reason = first, "the first column of test, which the sample submission has as well"
    for role in ("sample", "test", "train"):
        _check_ids(files, role, name)
    strangers = set(files.column("sample", name)) - set(files.column("test", name))
    if strangers:
        raise PodiumError(
            f"{files.path('sample')}: {name} {min(strangers)!r} is not in {files.path('test').name} "
            f"({len(strangers)} such ids), so {name} cannot be the id; name another with --id COLUMN"
        )
    return name, reason


def _check_ids(files: KaggleFiles, role: str, name: str) -> None:
    if name not in files.columns[role]:
        raise _unclear(files, f"{files.path(role).name} has no column {name!r} to be the id", "--id COLUMN")
    ids = files.column(role, name)
    if ids.empty:
        raise PodiumError(f"{files.path(role)}: no rows under the header")
    twice = ids[ids.duplicated()]
    if not twice.empty:
        first, second = (files.line(role, int(row)) for row in ids.index[ids == twice.iloc[0]][:2])
        raise PodiumError(
            f"{files.path(role)}: {name} {twice.iloc[0]!r} stands in lines {first} and {second}; "
            f"an id must be unique: remove one, or name another column with --id COLUMN"
        )


def _find_labels(files: KaggleFiles, id_column: str, given: str | None) -> tuple[tuple[str, ...], str]:
    if given is not None:
        return _given_labels(files, id_column, given), "as given by --label"
    asked = asked_columns(files, id_column)
    only_train = [name for name in files.columns["train"] if name not in {id_column, *files.columns["test"]}]
    if asked and all(name in only_train for name in asked):
        return tuple(asked), "what the sample submission asks for beside the id; test does not have it"
    spelled_out = {name: classes for name in only_train if (classes := find_classes(files, asked, name)) is not None}
    if len(spelled_out) == 1:
        ((name, classes),) = spelled_out.items()
        return (name,), classes.reason
    in_test = [name for name in asked if name in files.columns["test"]]
    if in_test:
        raise _unclear(
            files, f"test already has {in_test[0]!r}, which the sample submission asks for", "--label COLUMN"
        )
    if not asked:
        raise _unclear(files, "the sample submission has nothing but ids", "--label COLUMN")
    if len(asked) == len(only_train) == 1:
        return (only_train[0],), f"train's only column that test lacks; the sample submission calls it {asked[0]}"
    raise _without_label(files, asked)


def _given_labels(files: KaggleFiles, id_column: str, given: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    wrong = [name for name in labels if name not in files.columns["train"] or name == id_column]
    if wrong:
        raise _unclear(files, f"train has no column {wrong[0]!r} beside its id", "--label COLUMN")
    asked = asked_columns(files, id_column, labels)
    if not asked:
        raise _unclear(files, "the sample submission has nothing but ids", "--id COLUMN")
    if len(labels) == 1 and find_classes(files, asked, labels[0]) is not None:
        return labels
    is_no_label = asked[0] not in files.columns["train"] or asked[0] in files.columns["test"]
    is_renamed = len(labels) == len(asked) == 1 and is_no_label
    if not set(labels) <= set(asked) and not is_renamed:
        raise _without_label(files, asked)
    only_train = set(files.columns["train"]) - set(files.columns["test"])
    others = [name for name in asked if name not in labels and name in only_train]
    if others:
        raise PodiumError(
            f"{files.path('sample')}: asks for {others[0]!r} beside {', '.join(labels)}, and train has it as well; a "
            f"submission would lack these answers: name all the columns with --label {','.join([*labels, *others])}"
        )
    return labels


def _without_label(files: KaggleFiles, asked: Sequence[str]) -> PodiumError:
    missing = next((name for name in asked if name not in files.columns["train"]), asked[0])
    return PodiumError(
        f"{files.data_dir}: the sample submission asks for {missing!r}, which is neither the label in train nor one of "
        f"its classes; name the label in {files.path('train').name} ({_listed(files.columns['train'])}) with --label"
    )


def _find_inputs(files: KaggleFiles, id_column: str, labels: Sequence[str]) -> tuple[tuple[str, ...], str]:
    reserved = {id_column, *labels}
    train = [name for name in files.columns["train"] if name not in reserved]
    inputs = tuple(name for name in train if name in files.columns["test"] and not name.startswith("Unnamed: "))
    if not inputs:
        raise PodiumError(
            f"{files.data_dir}: train and test share no column beside the id {id_column}, so that there is nothing to "
            "predict from; where the id names an image, write a competition file with images=ImagePlaces(...), as "
            "cassava_leaf_disease.py has it; else name the id with --id COLUMN"
        )
    left_out = [name for name in [*train, *files.columns["test"]] if name not in {*reserved, *inputs}]
    reason = "every column that train and test share"
    return inputs, f"{reason}; only one of the two has {_listed(left_out)}" if left_out else reason


def _find_task(
    files: KaggleFiles, id_column: str, labels: Sequence[str], given: str | None, *, has_class_columns: bool
) -> tuple[str, str]:
    columns = {name: files.column("train", name) for name in labels}
    for name, values in columns.items():
        empty = values[values.str.strip() == ""]
        if not empty.empty:
            raise PodiumError(
                f"{files.path('train')}: line {files.line('train', int(empty.index[0]))} has no {name} "
                f"({len(empty)} such rows); remove the rows without a label"
            )
    if given is not None:
        _check_task(files, given, columns)
        return given, "as given by --task"
    if len(labels) > 1:
        if not all(map(is_zero_or_one, columns.values())):
            raise PodiumError(
                f"{files.path('train')}: the labels {_listed(labels)} are not all 0 or 1; several columns can only be "
                "multilabel, so a competition of several values or classes per row needs a file of its own"
            )
        return "multilabel", f"{len(labels)} label columns of 0 and 1"
    if has_class_columns:
        return "multiclass", "the sample submission has one column for each class"
    task, reason = _task_of_one_label(files, labels[0], columns[labels[0]], _has_fractions(files, id_column, labels))
    if task == "multiclass":
        _check_words(files, labels[0], columns[labels[0]], _answers(files, id_column, labels))
    return task, reason


def _check_words(files: KaggleFiles, name: str, values: pd.Series, answers: pd.Series) -> None:
    """Words are not submitted where the sample answers with numbers, unless --task says so."""
    if not is_number(values) and is_number(answers) and not answers.isin(values.unique()).any():
        raise PodiumError(
            f"{files.path('sample')}: answers with {answers.iloc[0]} in {answers.name}, but {name} in "
            f"{files.path('train').name} holds words such as {values.iloc[0]!r}; write the numbers that are asked for "
            "in place of the words (1 and 0 for two of them), or submit the words with --task multiclass"
        )


def _task_of_one_label(files: KaggleFiles, name: str, values: pd.Series, sample_has_fractions: bool) -> tuple[str, str]:
    num_distinct = values.nunique()
    if is_zero_or_one(values):
        return "binary", f"{name} is 0 or 1"
    if not is_number(values) or are_codes(values):
        if 2 * num_distinct > len(values):
            return "text_to_text", f"{name} holds {num_distinct} different texts in {len(values)} rows"
        if num_distinct <= MAX_CLASSES:
            return "multiclass", f"{name} holds {num_distinct} different words in {len(values)} rows"
        raise _unclear(files, f"{name} holds {num_distinct} different words", "--task multiclass or text_to_text")
    numbers = pd.to_numeric(values)
    if (numbers % 1 != 0).any():
        return "regression", f"{name} holds fractions"
    if sample_has_fractions:
        return "regression", f"{name} holds whole numbers, but the sample submission has fractions"
    if num_distinct <= SURE_CLASSES:
        return "multiclass", f"{name} holds only {num_distinct} different whole numbers"
    is_gapless = numbers.max() - numbers.min() + 1 == num_distinct
    if num_distinct > MAX_CLASSES or 2 * num_distinct > len(values) or not is_gapless:
        return "regression", f"{name} holds {num_distinct} different whole numbers"
    raise _unclear(files, f"{name} holds {num_distinct} successive numbers", "--task multiclass or regression")


def _check_task(files: KaggleFiles, task: str, columns: dict[str, pd.Series]) -> None:
    if task not in TASKS:
        raise PodiumError(f"--task {task}: unknown; known tasks: {', '.join(TASKS)}")
    if len(columns) > 1 and task != "multilabel":
        raise PodiumError(f"--task {task} has one label column, not {len(columns)}; choose it with --label COLUMN")
    for name, values in columns.items():
        if task in ("binary", "multilabel") and not is_zero_or_one(values):
            stranger = next(value for value in values if value not in ZERO_OR_ONE)
            raise _unclear(files, f"{name} of a {task} task holds {stranger!r}, not 0 or 1", "--label COLUMN or --task")
        if task == "regression" and not is_number(values):
            raise _unclear(files, f"{name} of a regression holds words", "--label COLUMN or --task")


def is_zero_or_one(values: pd.Series) -> bool:
    return bool(values.isin(ZERO_OR_ONE).all())


def are_codes(values: pd.Series) -> bool:
    """Whether digits are names: a number would lose the zeros of "007", and a float those past its 53 bits."""
    has_zeros = values.str.fullmatch(r"[+-]?0\d+")
    has_more_digits = values.str.fullmatch(r"[+-]?\d{17,}")
    return bool((has_zeros | has_more_digits).any())


def is_number(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().all())


def _answers(files: KaggleFiles, id_column: str, labels: Sequence[str]) -> pd.Series:
    """The sample's first column of answers."""
    return files.column("sample", asked_columns(files, id_column, labels)[0])


def _has_fractions(files: KaggleFiles, id_column: str, labels: Sequence[str]) -> bool:
    """Whether the sample answers with fractions (0.5, 180921.2), which a class would not be."""
    for name in asked_columns(files, id_column, labels):
        values = pd.to_numeric(files.column("sample", name), errors="coerce")
        if (values % 1 > 0).any():
            return True
    return False


def _class_names(files: KaggleFiles, label: str) -> tuple[str, ...]:
    values = files.column("train", label)
    names = values.unique().tolist()
    return tuple(sorted(names, key=float if is_number(values) else None))


def _find_metric(
    files: KaggleFiles,
    id_column: str,
    labels: Sequence[str],
    task: str,
    given: str | None,
    *,
    has_class_columns: bool,
) -> tuple[str, str]:
    if given is not None:
        if given not in METRICS:
            raise PodiumError(f"--metric {given}: unknown; known metrics: {', '.join(sorted(METRICS))}")
        if given not in (fitting := fitting_metrics(task)):
            raise PodiumError(f"--metric {given}: does not score a {task} task; {', '.join(fitting)} do")
        return given, "as given by --metric"
    page = "hold it against the competition's Evaluation page"
    if has_class_columns:
        return "log_loss", f"the sample submission asks for class probabilities; {page}"
    if task == "binary":
        if _has_fractions(files, id_column, labels):
            return "auc", f"the sample submission asks for probabilities; {page}"
        answer = _answers(files, id_column, labels).iloc[0]
        return "accuracy", (
            f"the sample submission answers {answer}, which may be a label or a probability; where the Evaluation page "
            "says AUC or log loss, give --metric auc or --metric log_loss, for accuracy submits 0 and 1 alone"
        )
    usual = {"multilabel": "auc", "regression": "rmse", "text_to_text": "exact_match"}
    return usual.get(task, "accuracy"), f"the usual one of a {task} task; {page}"


def _find_folds(files: KaggleFiles, labels: Sequence[str], task: str) -> tuple[str, str]:
    if task == "text_to_text":
        return "kfold", "rows at random; texts have no classes to stratify by"
    if task == "regression":
        return "stratified", "every fold has low and high values in the shares of the whole"
    if task == "multilabel":
        return "stratified", "every fold has each label as often, as nearly as combinations allow"
    counts = files.column("train", labels[0]).value_counts()
    if counts.min() < NUM_FOLDS:
        return "kfold", f"class {counts.idxmin()} has fewer rows ({counts.min()}) than there are folds ({NUM_FOLDS})"
    return "stratified", "every fold has the classes in the shares of the whole"


def _label_hints(files: KaggleFiles, id_column: str, labels: Sequence[str], task: str) -> Iterable[str]:
    """Doubts about what the labels are."""
    if len(labels) > 1:
        cells = pd.DataFrame({name: pd.to_numeric(files.column("train", name), errors="coerce") for name in labels})
        if (cells.sum(axis=1) == 1).all():
            yield (
                f"exactly one of {_listed(labels)} is 1 in every row: if they are the classes of one label, write the "
                "names of these columns into one column and give it with --label, for the probabilities of several "
                "labels do not sum to 1"
            )
    answers = asked_columns(files, id_column, labels)
    if copied := [name for name in files.columns["sample"] if name not in {id_column, *answers}]:
        yield f"submissions repeat what the sample submission has in {_listed(copied)}"
    if task != "multiclass" or len(answers) > 1:
        return
    answered, values = files.column("sample", answers[0]), files.column("train", labels[0])
    if not is_number(values) and is_number(answered):
        yield f"the sample submission answers with {answered.iloc[0]}, which is none of the classes of {labels[0]}"


def _group_hints(files: KaggleFiles, reserved: Iterable[str]) -> Iterable[str]:
    """Keys that several training rows share: a validation row would then have relatives among the training rows."""
    for name in files.columns["train"]:
        if name in reserved or not name.lower().endswith(GROUP_ENDINGS):
            continue
        values = files.column("train", name)
        if not 1 < values.nunique() < 0.9 * len(values):
            continue
        hint = f"{name} has {values.nunique()} values in {len(values)} rows"
        if name in files.columns["test"]:
            known = files.column("test", name).isin(values.unique()).mean()
            hint += f", and {known:.0%} of the test rows have one that train knows"
        yield f'{hint}: where test brings new ones, folds "group" with group_column="{name}" tell the truth'


def _listed(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"


def _unclear(files: KaggleFiles, what: str, flag: str) -> PodiumError:
    seen = "; ".join(f"{files.path(role).name}: {_listed(names)}" for role, names in files.columns.items())
    return PodiumError(f"{files.data_dir}: {what}. Seen: {seen}. Decide with {flag}")
