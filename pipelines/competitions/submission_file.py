"""What Kaggle would refuse, refused here first: a submission held against the sample, and written byte for byte alike.

A code competition answers a wrong file with "Submission Scoring Error" and no more, so every check names the file, the
column, the row and what would work.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from components.files.atomic import write_text
from pipelines.competitions.answers import RANKED, answer_columns, answers_are_numbers, class_names_of
from pipelines.competitions.competition import Competition
from pipelines.competitions.csv_text import to_csv_text
from pipelines.competitions.tasks import submits_grades
from pipelines.errors import PodiumError

FILE_NAME = "submission.csv"
SAMPLE_NAME = "sample_submission.csv"
# Class probabilities pass through float32 softmaxes and, in files of others, through rounding to two or three digits.
ROW_SUM_TOLERANCE = 1e-2
NUM_EXAMPLES = 3


def check_submission(submission: pd.DataFrame, sample: pd.DataFrame, competition: Competition, *, source: str) -> None:
    """Hold a submission against the sample submission.

    `source` is how messages call it; where it names a file, that file must be called submission.csv, for a code
    competition finds no other. Raises `PodiumError` at the first of: file name, columns, ids, empty or infinite
    cells, type, range, grade or class, row sums, and what the sample holds beside ids and answers.
    """
    if Path(source).suffix and Path(source).name != FILE_NAME:
        raise PodiumError(f"{source}: Kaggle looks for {FILE_NAME}: rename the file")
    check_frame(submission, sample, competition, source=source)


def check_frame(submission: pd.DataFrame, sample: pd.DataFrame, competition: Competition, *, source: str) -> None:
    """`check_submission` of the table alone, for files (baseline rows) that have names of their own."""
    _check_columns(submission, sample, source)
    id_column = competition.id_column if competition.id_column in sample.columns else str(sample.columns[0])
    _check_ids(submission[id_column], sample[id_column], source)
    ids = submission[id_column]
    columns = [str(column) for column in sample.columns]
    answers = answer_columns(competition, columns)
    for column in competition.copied_columns(columns):
        _check_copied(submission[column], sample[column], ids, source)
    numbers = {}
    for column in answers:
        cells = submission[column]
        _check_filled(cells, ids, source)
        if competition.task == "multiclass" and not answers_are_numbers(competition, answers):
            _check_classes(cells, competition, ids, source)
        elif is_numeric(sample[column]):
            numbers[column] = _check_numbers(cells, ids, source)
            if submits_grades(competition.task, competition.metric):
                _check_whole(numbers[column], cells, ids, competition, source)
    if competition.task in ("binary", "multiclass", "multilabel"):
        _check_probabilities(numbers, ids, source)
    if competition.task == "multiclass" and numbers:
        _check_row_sums(numbers, ids, source)


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers; True/False are two class names, whatever pandas makes of them."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def load_submission(path: Path, sample: pd.DataFrame) -> pd.DataFrame:
    """Read a submission so that text stays what it is ("NA" is a place) and an odd cell is left for the check to name.

    Columns that are numeric in the sample become numbers where every cell is one. Raises `PodiumError` for a file
    that is missing or no CSV.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise PodiumError(f"{path}: no such file; `make predict` writes it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PodiumError(f"{path}: not a CSV file ({error}); write it again with `make predict`") from None
    return as_typed_like(frame, sample)


def as_typed_like(frame: pd.DataFrame, sample: pd.DataFrame) -> pd.DataFrame:
    """Columns that are numeric in the sample as numbers, as far as all their cells are numbers; the rest untouched."""
    typed = frame.copy()
    for column in frame.columns:
        if column in sample.columns and is_numeric(sample[column]):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            if not numbers.isna().any():
                typed[column] = numbers
    return typed


def write_submission(frame: pd.DataFrame, path: Path) -> None:
    """Write a submission: the same frame gives the same bytes everywhere, and a reader never meets half a file.

    Floats are written with the fewest digits that read back as the same float64; lines end in "\\n"; UTF-8. A cell
    with a line end of any kind is quoted.
    """
    write_text(path, to_csv_text(frame, float_format=_format_float))


def _format_float(value: object) -> str:
    """Exactly this float64, whatever library it comes from."""
    return repr(float(value))  # type: ignore[arg-type]


def _check_columns(submission: pd.DataFrame, sample: pd.DataFrame, source: str) -> None:
    found, expected = list(map(str, submission.columns)), list(map(str, sample.columns))
    if found == expected:
        return
    missing = [column for column in expected if column not in found]
    extra = [column for column in found if column not in expected]
    if missing:
        problem, cure = f"column {_some(missing)} is missing", "add it"
    elif extra:
        problem, cure = f"column {_some(extra)} is not in {SAMPLE_NAME}", "drop it"
    elif len(set(found)) < len(found):
        problem, cure = f"column {_some(_duplicates(found))} stands twice", "drop one"
    else:
        problem, cure = "the columns stand in another order", "reorder them"
    raise PodiumError(f"{source}: {problem} (found {','.join(found)}; {SAMPLE_NAME} has {','.join(expected)}): {cure}")


def _check_ids(found: pd.Series, expected: pd.Series, source: str) -> None:
    names, wanted = found.astype(str).tolist(), expected.astype(str).tolist()
    if names == wanted:
        return
    known, have = set(wanted), set(names)
    where = f"{source}: column {found.name}"
    if repeated := _duplicates(names):
        raise PodiumError(f"{where}: {_count(repeated, 'id')} more than once ({_some(repeated)}): keep one row per id")
    if missing := [name for name in wanted if name not in have]:
        cure = f"predict every row of {SAMPLE_NAME}"
        raise PodiumError(f"{where}: {_count(missing, 'id')} missing ({_some(missing)}): {cure}")
    if extra := [name for name in names if name not in known]:
        cure = "predict the test set of this competition only"
        raise PodiumError(f"{where}: {_count(extra, 'id')} not in {SAMPLE_NAME} ({_some(extra)}): {cure}")
    row = next(row for row, (name, want) in enumerate(zip(names, wanted, strict=True), start=1) if name != want)
    what = f"row {row} has id {names[row - 1]} where {SAMPLE_NAME} has {wanted[row - 1]}"
    raise PodiumError(f"{where}: {what}: put the rows in the order of {SAMPLE_NAME}")


def _check_filled(cells: pd.Series, ids: pd.Series, source: str) -> None:
    empty = cells.isna().to_numpy() | (cells.astype(str).str.strip() == "").to_numpy()
    if empty.any():
        where = f"{source}: column {cells.name}, {_at(empty, ids)}"
        raise PodiumError(f"{where}: the cell is empty: Kaggle refuses a file with empty cells, so write a guess")


def _check_copied(found: pd.Series, expected: pd.Series, ids: pd.Series, source: str) -> None:
    """What is neither an id nor an answer stands in a submission as it does in the sample."""
    other = (found.astype(str).to_numpy() != expected.astype(str).to_numpy()).astype(bool)
    if other.any():
        row = int(np.argmax(other))
        raise PodiumError(
            f"{source}: column {found.name}, {_at(other, ids)}: {found.iloc[row]!s} where {SAMPLE_NAME} has "
            f"{expected.iloc[row]!s}: copy what is no answer"
        )


def _check_whole(values: np.ndarray, cells: pd.Series, ids: pd.Series, competition: Competition, source: str) -> None:
    """Graders of whole grades refuse any other number."""
    fractions = values % 1 != 0
    if fractions.any():
        value = cells.iloc[int(np.argmax(fractions))]
        raise PodiumError(
            f"{source}: column {cells.name}, {_at(fractions, ids)}: {value!s} is no whole grade, which "
            f"{competition.metric} compares: round the predictions"
        )


def _check_numbers(cells: pd.Series, ids: pd.Series, source: str) -> np.ndarray:
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    for bad, problem, cure in (
        (np.isnan(numbers), "is not a number", "write a number"),
        (np.isinf(numbers), "is infinite", "clip the predictions"),
    ):
        if bad.any():
            value = cells.iloc[int(np.argmax(bad))]
            raise PodiumError(f"{source}: column {cells.name}, {_at(bad, ids)}: {value!s} {problem}: {cure}")
    return numbers


def _check_classes(cells: pd.Series, competition: Competition, ids: pd.Series, source: str) -> None:
    """One class per cell, or where guesses are ranked, classes separated by blanks."""
    known = set(competition.class_names)
    if competition.metric.startswith(RANKED):
        strange = [next((name for name in cell.split() if name not in known), None) for cell in cells.astype(str)]
    else:
        strange = [None if name in known else name for name in class_names_of(competition, cells)]
    unknown = np.array([name is not None for name in strange])
    if unknown.any():
        cure = f"write one of {_some(competition.class_names, most=8)}"
        name = strange[int(np.argmax(unknown))]
        raise PodiumError(f"{source}: column {cells.name}, {_at(unknown, ids)}: {name} is no class: {cure}")


def _check_probabilities(numbers: Mapping[str, np.ndarray], ids: pd.Series, source: str) -> None:
    for column, values in numbers.items():
        outside = (values < 0) | (values > 1)
        if outside.any():
            value = _format_float(values[int(np.argmax(outside))])
            where = f"{source}: column {column}, {_at(outside, ids)}"
            raise PodiumError(f"{where}: {value} is no probability: write values from 0 to 1")


def _check_row_sums(numbers: Mapping[str, np.ndarray], ids: pd.Series, source: str) -> None:
    sums = np.sum(list(numbers.values()), axis=0)
    wrong = np.abs(sums - 1) > ROW_SUM_TOLERANCE
    if wrong.any():
        total = f"{sums[int(np.argmax(wrong))]:.4g}"
        problem = f"the class probabilities sum to {total}, not 1"
        raise PodiumError(f"{source}: {_at(wrong, ids)}: {problem}: divide each row by its sum")


def _at(bad: np.ndarray, ids: pd.Series) -> str:
    """The first bad row by name, and how many more there are."""
    num_more = int(bad.sum()) - 1
    row = int(np.argmax(bad))
    return f"row {row + 1} (id {ids.iloc[row]})" + (f" and {num_more} more" if num_more else "")


def _some(names: Sequence[str], most: int = NUM_EXAMPLES) -> str:
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def _count(names: Sequence[str], noun: str) -> str:
    return f"1 {noun} is" if len(names) == 1 else f"{len(names)} {noun}s are"


def _duplicates(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name in names:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    return list(repeated)
