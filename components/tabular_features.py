"""Columns of a table typed by their values, and the feature matrices that scikit-learn's estimators read from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

MISSING_NUMBERS = ("", "na", "n/a", "nan", "null", "none")
ISO_DATE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?"
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


def column_kinds(frame: pd.DataFrame, *, may_be_category: bool = True) -> ColumnKinds:
    """Types every column by its values, so numbers that were read as strings are numbers again.

    `may_be_category=False` calls every column of strings a text, which is what a nearest neighbour needs: in a corpus
    of translations the source text repeats as often as a category does.
    """
    found: dict[str, list[str]] = {"numbers": [], "dates": [], "categories": [], "texts": []}
    for name in frame.columns:
        found[_kind_of(frame[name], may_be_category)].append(name)
    return ColumnKinds(**{kind: tuple(names) for kind, names in found.items()})


def _kind_of(column: pd.Series, may_be_category: bool) -> str:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return "numbers"
    values = _strings(column)
    present = values[~values.str.strip().str.lower().isin(MISSING_NUMBERS)]
    if pd.to_numeric(present, errors="coerce").notna().all():
        return "numbers"
    if present.str.fullmatch(ISO_DATE).all():
        return "dates"
    num_distinct = values.nunique()
    if 2 * num_distinct > len(values) or not may_be_category:
        return "texts"
    if num_distinct <= MAX_CATEGORIES:
        return "categories"
    is_name = np.mean([len(str(value).split()) for value in values]) < WORDS_OF_A_NAME
    return "categories" if is_name else "texts"


def _strings(column: pd.Series) -> pd.Series:
    """Plain Python strings whatever the reader chose (object, string, category), "" where nothing stands."""
    return column.astype(object).where(column.notna(), "").map(str).astype(object)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
        column = pd.to_numeric(_strings(column), errors="coerce")
    values = column.to_numpy(dtype="float64", na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _date_parts(column: pd.Series) -> dict[str, NDArray[np.float64]]:
    moments = pd.to_datetime(_strings(column), format="mixed", errors="coerce", utc=True)
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


def build_linear_features(kinds: ColumnKinds, *, max_features: int, char_ngrams: bool) -> ColumnTransformer:
    """Scaled numbers with a flag where one was missing, one-hot categories, TF-IDF of words and characters."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    categories = OneHotEncoder(handle_unknown="ignore", max_categories=MAX_CATEGORIES)
    texts = [(f"text {name}", _ngrams(max_features, char_ngrams), name) for name in kinds.texts]
    return ColumnTransformer(
        [("numbers", numbers, _numeric_columns(kinds)), ("categories", categories, list(kinds.categories)), *texts]
    )


def build_boosting_features(kinds: ColumnKinds, *, seed: int) -> ColumnTransformer:
    """Categories first (boosting is told their positions), numbers as they are, a text as 16 latent directions."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES)
    texts = []
    for name in kinds.texts:
        counts = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**15, alternate_sign=False)
        latent = TruncatedSVD(n_components=16, random_state=seed)
        texts.append((f"text {name}", make_pipeline(counts, TfidfTransformer(sublinear_tf=True), latent), name))
    tables = [("categories", codes, list(kinds.categories)), ("numbers", "passthrough", _numeric_columns(kinds))]
    return ColumnTransformer([*tables, *texts], sparse_threshold=0)


def build_neighbour_features(kinds: ColumnKinds) -> ColumnTransformer:
    """Each column of text as a vector of length 1: a short one (the target language) weighs as much as a long one."""
    return ColumnTransformer(
        [
            (f"text {name}", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True), name)
            for name in kinds.texts
        ]
    )
