"""Columns of a table typed by their values, and the feature matrices that scikit-learn's estimators read from them."""

import re
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

MISSING_NUMBERS = ("", "na", "n/a", "nan", "null", "none")
ISO_DATE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?"
# Codes are whole numbers without a sign for a fraction; two of them become one number where one is written like these:
# "007" is 7, "1E5" is 100000, and of 16 digits float64 does not hold every one.
WHOLE = re.compile(r"[+-]?\d+([eE]\d+)?")
CODED = re.compile(r"[+-]?(0\d+|\d+[eE]\d+|\d{16,})")
DATE_PARTS = ("year", "month", "day", "day_of_week", "hour")  # beside the days since 1970, which carry a trend
# Histogram boosting has 255 bins; a column of more distinct values keeps its commonest and pools the rest.
MAX_CATEGORIES = 200
WORDS_OF_A_NAME = 1.5  # a column whose cells are single repeated words (cities, codes) is a category at any size


@dataclass(frozen=True)
class ColumnKinds:
    """The columns of a table by what they hold, each in the table's order."""

    numbers: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def by_column(self) -> dict[str, str]:
        """The kind of each column."""
        return {name: field.name for field in fields(self) for name in getattr(self, field.name)}


@dataclass(frozen=True)
class Stranger:
    """Cells that are no numbers or no dates in a column of these: the first, and how many there are."""

    column: str
    kind: str
    row: int
    value: str
    number: int


def column_kinds(
    frame: pd.DataFrame,
    *,
    may_be_category: bool = True,
    beside: pd.DataFrame | None = None,
    whole: ColumnKinds | None = None,
) -> ColumnKinds:
    """Types every column by its values, so numbers that were read as strings are numbers again.

    Codes stay apart: where "007" and "7", "1E5" and "100000" or two whole numbers beyond 2**53 would become one number,
    in `frame` or together with the rows of `beside`, the column is a category.

    `may_be_category=False` calls every column of strings a text, which is what a nearest neighbour needs: in a corpus
    of translations the source text repeats as often as a category does. `whole` are the kinds of the table that these
    rows are a part of: a column that only this part takes for numbers or dates is of the kind that it has there.
    """
    found: dict[str, list[str]] = {"numbers": [], "dates": [], "categories": [], "texts": []}
    known = whole.by_column if whole is not None else {}
    for name in frame.columns:
        kind = _kind_of(frame[name], may_be_category)
        if kind == "numbers" and beside is not None and _are_codes([frame[name], beside[name]]):
            kind = "categories" if may_be_category else "texts"
        if kind in ("numbers", "dates"):
            kind = known.get(name, kind)
        found[kind].append(name)
    return ColumnKinds(**{kind: tuple(names) for kind, names in found.items()})


def find_strangers(frame: pd.DataFrame, kinds: ColumnKinds) -> list[Stranger]:
    """The columns of numbers and dates in which cells hold something else, which predictions would take for nothing."""
    found = []
    for name, kind in kinds.by_column.items():
        if kind not in ("numbers", "dates") or name not in frame.columns or _has_numbers(frame[name]):
            continue
        values = _strings(frame[name])
        is_read = values.str.fullmatch(ISO_DATE) if kind == "dates" else pd.to_numeric(values, errors="coerce").notna()
        bad = ~(is_read.astype(bool) | _is_missing(values)).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            found.append(Stranger(name, kind, row, str(values.iloc[row]), int(bad.sum())))
    return found


def has_values(column: pd.Series) -> bool:
    """Whether any cell holds something."""
    return bool((~_is_missing(_strings(column))).any())


def _kind_of(column: pd.Series, may_be_category: bool) -> str:
    if _has_numbers(column):
        return "numbers"
    values = _strings(column)
    present = values[~_is_missing(values)]
    if pd.to_numeric(present, errors="coerce").notna().all():
        if not _are_codes([present]):
            return "numbers"
        return "categories" if may_be_category else "texts"
    if present.str.fullmatch(ISO_DATE).all():
        return "dates"
    num_distinct = values.nunique()
    if 2 * num_distinct > len(values) or not may_be_category:
        return "texts"
    if num_distinct <= MAX_CATEGORIES:
        return "categories"
    is_name = np.mean([len(str(value).split()) for value in values]) < WORDS_OF_A_NAME
    return "categories" if is_name else "texts"


def _are_codes(columns: list[pd.Series]) -> bool:
    """Whether different cells would become one number although codes are written so."""
    if any(map(_has_numbers, columns)):
        return False
    texts = pd.Series(pd.unique(pd.concat([_strings(column) for column in columns], ignore_index=True)), dtype=object)
    texts = texts[~_is_missing(texts)]
    values = pd.to_numeric(texts, errors="coerce").to_numpy(dtype="float64")
    if len(np.unique(values)) == len(texts):
        return False
    alike: dict[float, set[str]] = defaultdict(set)
    for text, value in zip(texts.str.strip(), values.tolist(), strict=True):
        if not WHOLE.fullmatch(text):
            return False
        alike[value].add(text)
    return any(len(cells) > 1 and any(map(CODED.fullmatch, cells)) for cells in alike.values())


def _has_numbers(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _is_missing(values: pd.Series) -> pd.Series:
    return values.str.strip().str.lower().isin(MISSING_NUMBERS)


def _strings(column: pd.Series) -> pd.Series:
    """Plain Python strings whatever the reader chose (object, string, category), "" where nothing stands."""
    return column.astype(object).where(column.notna(), "").map(str).astype(object)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    if not _has_numbers(column):
        column = pd.to_numeric(_strings(column), errors="coerce")
    values = column.to_numpy(dtype="float64", na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _date_parts(column: pd.Series) -> dict[str, NDArray[np.float64]]:
    values = _strings(column)
    # pandas would read 1/2/2024 as well, and take the first for the month.
    values = values.where(values.str.fullmatch(ISO_DATE).astype(bool), "")
    moments = pd.to_datetime(values, format="mixed", errors="coerce", utc=True)
    parts = {name: _numbers(getattr(moments.dt, name)) for name in DATE_PARTS}
    days = (moments - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(days=1)
    return {"days": _numbers(days), **parts}


def canonical_table(frame: pd.DataFrame, kinds: ColumnKinds) -> pd.DataFrame:
    """Two dtypes only (float64, Python strings), which a Parquet file gives back bit for bit."""
    columns: dict[str, Any] = {name: _numbers(frame[name]) for name in kinds.numbers}
    columns |= {name: _strings(frame[name]).to_numpy() for name in kinds.dates + kinds.categories + kinds.texts}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def with_date_parts(frame: pd.DataFrame, kinds: ColumnKinds) -> pd.DataFrame:
    parts = {f"{name}/{part}": values for name in kinds.dates for part, values in _date_parts(frame[name]).items()}
    return pd.concat([frame.drop(columns=list(kinds.dates)), pd.DataFrame(parts, index=frame.index)], axis=1)


def _numeric_columns(kinds: ColumnKinds) -> list[str]:
    return [*kinds.numbers, *(f"{name}/{part}" for name in kinds.dates for part in ("days", *DATE_PARTS))]


def _ngrams(max_features: int, char_ngrams: bool) -> FeatureUnion:
    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True, max_features=max_features)
    # Characters serve the languages that write no spaces and the words that training never saw.
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=max_features)
    return FeatureUnion([("words", words), *([("characters", characters)] if char_ngrams else [])])


def build_linear_features(
    table: pd.DataFrame, kinds: ColumnKinds, *, max_features: int, char_ngrams: bool
) -> ColumnTransformer:
    """Scaled numbers with a flag where one was missing, one-hot categories, TF-IDF of words and characters.

    `table` is what it will be fitted on, with the parts of dates; a text that is empty in every row is left out.
    """
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    categories = OneHotEncoder(handle_unknown="ignore", max_categories=MAX_CATEGORIES)
    texts = [(f"text {name}", _ngrams(max_features, char_ngrams), name) for name in _written(table, kinds)]
    tables = [("numbers", numbers, _numeric_columns(kinds)), ("categories", categories, list(kinds.categories))]
    return _joined(table, [*tables, *texts])


def build_boosting_features(table: pd.DataFrame, kinds: ColumnKinds, *, seed: int) -> ColumnTransformer:
    """Categories first (boosting is told their positions), numbers as they are, a text as 16 latent directions.

    `table` is what it will be fitted on, with the parts of dates; a column without a value in any row is left out.
    """
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES)
    texts = []
    for name in _written(table, kinds):
        counts = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**15, alternate_sign=False)
        latent = TruncatedSVD(n_components=16, random_state=seed)
        texts.append((f"text {name}", make_pipeline(counts, TfidfTransformer(sublinear_tf=True), latent), name))
    numbers = [name for name in _numeric_columns(kinds) if table[name].notna().any()]
    tables = [("categories", codes, list(kinds.categories)), ("numbers", "passthrough", numbers)]
    return _joined(table, [*tables, *texts], sparse_threshold=0)


def build_neighbour_features(table: pd.DataFrame, kinds: ColumnKinds) -> ColumnTransformer:
    """Each column of text as a vector of length 1: a short one (the target language) weighs as much as a long one."""
    return _joined(
        table,
        [
            (f"text {name}", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True), name)
            for name in _written(table, kinds)
        ],
    )


def _written(table: pd.DataFrame, kinds: ColumnKinds) -> list[str]:
    """The columns of text in which any row says something: of nothing there is no n-gram."""
    return [name for name in kinds.texts if table[name].str.strip().ne("").any()]


def _joined(table: pd.DataFrame, parts: list[tuple[str, Any, Any]], **settings: Any) -> ColumnTransformer:  # noqa: ANN401
    """All parts side by side; where no column holds anything, a column of zeros, from which the shares are learnt."""
    if not any(columns for _, _, columns in parts):
        parts = [("nothing", FunctionTransformer(_zeros), [table.columns[0]])]
    return ColumnTransformer(parts, **settings)


def _zeros(table: pd.DataFrame) -> NDArray[np.float64]:
    return np.zeros((len(table), 1))
