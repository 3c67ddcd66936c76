"""A scikit-learn baseline for any table: the score that a larger model has to beat before it is worth its time.

It types the columns by looking at them (numbers, ISO dates, categories, free text), so it needs no configuration;
gradient boosting reads a table without free text, a linear model over n-grams reads everything else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from components.tables.features import (
    ColumnKinds,
    build_boosting_features,
    build_linear_features,
    build_neighbour_features,
    canonical_table,
    column_kinds,
    with_date_parts,
)

TASKS = ("binary", "multiclass", "multilabel", "regression", "text_to_text")
ESTIMATORS = ("auto", "linear", "boosting")
SETTINGS = ("task", "num_classes", "estimator", "max_features", "char_ngrams", "strength", "seed")
NEIGHBOUR_BLOCK = 512  # rows compared at a time: 512 x 100,000 similarities are 400 MB
NEVER_STOPS = 10_000  # rows up to which scikit-learn's early_stopping="auto" grows every tree

Matrix: TypeAlias = NDArray[np.float64] | csr_matrix
Predictions: TypeAlias = NDArray[np.float64] | list[str]


class _Estimator(Protocol):
    """What is used of scikit-learn's estimators, which carry no types."""

    def fit(self, features: Matrix, targets: NDArray[Any]) -> Any: ...  # noqa: ANN401  (itself, or nothing)

    def predict(self, features: Matrix) -> Predictions: ...


class _FitClassifier(Protocol):
    def __call__(self, features: Matrix, targets: NDArray[Any]) -> Any: ...  # noqa: ANN401  (scikit-learn's)


class _Classifier:
    """Class probabilities over all classes; a class that was never seen in training gets probability 0."""

    def __init__(self, fit_model: _FitClassifier, num_classes: int) -> None:
        self.fit_model = fit_model
        self.num_classes = num_classes

    def fit(self, features: Matrix, targets: NDArray[Any]) -> None:
        self.seen = np.unique(targets)
        # One class alone is nothing to fit: scikit-learn refuses it, and its probability is 1.
        self.model = self.fit_model(features, targets) if len(self.seen) > 1 else None

    def predict(self, features: Matrix) -> NDArray[np.float64]:
        probabilities = np.zeros((features.shape[0], self.num_classes))  # (N, C)
        probabilities[:, self.seen] = 1.0 if self.model is None else self.model.predict_proba(features)
        return probabilities


class _BinaryClassifier(_Classifier):
    def __init__(self, fit_model: _FitClassifier) -> None:
        super().__init__(fit_model, num_classes=2)

    def predict(self, features: Matrix) -> NDArray[np.float64]:
        return super().predict(features)[:, 1]  # (N,)


class _OneVersusRest:
    """One independent classifier per label."""

    def __init__(self, fit_model: _FitClassifier) -> None:
        self.fit_model = fit_model

    def fit(self, features: Matrix, targets: NDArray[Any]) -> None:
        self.models = [_BinaryClassifier(self.fit_model) for _ in range(targets.shape[1])]
        for index, model in enumerate(self.models):
            model.fit(features, targets[:, index])

    def predict(self, features: Matrix) -> NDArray[np.float64]:
        return np.stack([model.predict(features) for model in self.models], axis=1)  # (N, K)


class _NearestNeighbour:
    """Answers with the target of the most similar training row; of equally similar ones, the first."""

    def fit(self, features: Matrix, targets: NDArray[Any]) -> None:
        self.known = csr_matrix(features)
        self.targets = targets

    def predict(self, features: Matrix) -> list[str]:
        nearest: list[int] = []
        for start in range(0, features.shape[0], NEIGHBOUR_BLOCK):
            similarities = (csr_matrix(features[start : start + NEIGHBOUR_BLOCK]) @ self.known.T).toarray()  # (n, N)
            nearest.extend(similarities.argmax(axis=1))
        return [str(self.targets[index]) for index in nearest]


def _fit_logistic(features: Matrix, targets: NDArray[Any], *, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000).fit(features, targets)


def _fit_boosting(
    features: Matrix, targets: NDArray[Any], *, settings: Mapping[str, Any]
) -> HistGradientBoostingClassifier:
    """In a large table boosting holds some rows back, each class in its share, to see when to stop.

    A class of one row cannot be shared out. It stands there twice then, each time with half the weight: the loss is the
    same, and so is when to stop. Without stopping, such a class makes the trees diverge.
    """
    model = HistGradientBoostingClassifier(**settings)
    classes, counts = np.unique(targets, return_counts=True)
    lone = np.flatnonzero(np.isin(targets, classes[counts == 1]))
    if len(targets) <= NEVER_STOPS or not len(lone):
        return model.fit(features, targets)
    rows = np.append(np.arange(len(targets)), lone)
    weights = np.where(np.isin(rows, lone), 0.5, 1.0)
    return model.fit(features[rows], targets[rows], sample_weight=weights)


class TabularBaseline:
    """Fits one table in seconds, without a setting; equal input gives bit-equal predictions on one machine.

    `estimator="auto"` is "linear" where a column of free text stands and "boosting" elsewhere; text_to_text always
    answers by its nearest neighbour. `num_classes` is needed for multiclass only, because a fold may lack a class.
    The linear model alone reads `max_features` (of words and of characters, per column of text), `char_ngrams` (off
    is several times faster) and `strength`, the inverse of its regularisation.
    """

    def __init__(
        self,
        *,
        task: str,
        num_classes: int | None = None,
        estimator: str = "auto",
        max_features: int = 50_000,
        char_ngrams: bool = True,
        strength: float = 1.0,
        seed: int = 0,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task: {task!r} is unknown; known tasks: {', '.join(TASKS)}")
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator: {estimator!r} is unknown; known estimators: {', '.join(ESTIMATORS)}")
        if task == "multiclass" and (num_classes is None or num_classes < 2):
            raise ValueError(f"num_classes: {num_classes} for a multiclass task; give the number of classes, 2 or more")
        self.task = task
        self.num_classes = num_classes
        self.estimator = estimator
        self.max_features = max_features
        self.char_ngrams = char_ngrams
        self.strength = strength
        self.seed = seed

    def fit(self, frame: pd.DataFrame, targets: ArrayLike | Sequence[str], *, whole: ColumnKinds | None = None) -> Self:
        """Learns the columns of `frame` (input columns only) and returns itself.

        `targets`: class indices (N,) for binary and multiclass, 0/1 (N, K) for multilabel, values (N,) for
        regression, strings for text_to_text. `whole` are the kinds of the table that `frame` is a part of, see
        `column_kinds`. A column without a value in these rows is ignored.
        """
        if frame.columns.empty or frame.empty:
            raise ValueError(f"the training table has {len(frame)} rows and {len(frame.columns)} input columns")
        self._targets = self._checked_targets(targets, len(frame))
        self.kinds = column_kinds(frame, may_be_category=self.task != "text_to_text", whole=whole)
        self._table = canonical_table(frame, self.kinds)
        table = with_date_parts(self._table, self.kinds)
        # Sums over several threads depend on their number in the last bit; one thread makes the fit repeatable.
        with threadpool_limits(limits=1):
            self._features = self._build_features(table)
            self._head = self._build_head()
            self._head.fit(self._features.fit_transform(table), self._targets)
        return self

    def predict(self, frame: pd.DataFrame) -> Predictions:
        """Probabilities (N,) for binary, (N, C) for multiclass, (N, K) for multilabel; values (N,); or N strings."""
        missing = [name for name in self._table.columns if name not in frame.columns]
        if missing:
            raise ValueError(f"no column {missing[0]!r}; the baseline was fitted on {list(self._table.columns)}")
        if frame.empty:
            raise ValueError("the table to predict has no rows")
        table = with_date_parts(canonical_table(frame, self.kinds), self.kinds)
        with threadpool_limits(limits=1):
            return self._head.predict(self._features.transform(table))

    @property
    def chosen_estimator(self) -> str:
        """What `auto` came to, known after `fit`: "linear", "boosting" or "nearest_neighbour"."""
        if self.task == "text_to_text":
            return "nearest_neighbour"
        if self.estimator == "auto":
            return "linear" if self.kinds.texts else "boosting"
        return self.estimator

    def save(self, folder: Path) -> None:
        """Writes baseline.json, inputs.parquet and targets.parquet: what it was fitted on, no fitted state.

        No pickle can hold a scikit-learn estimator safely or across versions, so `load_tabular_baseline` fits again.
        The price: the training rows lie in the folder, loading takes as long as fitting, and another version of
        scikit-learn may give slightly different predictions.
        """
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS}
        if column_kinds(self._table, may_be_category=self.task != "text_to_text") != self.kinds:
            settings["kinds"] = asdict(self.kinds)  # known from more rows than these
        (folder / "baseline.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        self._table.to_parquet(folder / "inputs.parquet")
        columns = self._targets.reshape(len(self._targets), -1)  # (N,) or (N, K) -> (N, K)
        pd.DataFrame({str(k): columns[:, k] for k in range(columns.shape[1])}).to_parquet(folder / "targets.parquet")

    def _checked_targets(self, targets: ArrayLike | Sequence[str], num_rows: int) -> NDArray[Any]:
        is_text = self.task == "text_to_text"
        values = np.asarray(targets, dtype=object if is_text else np.float64)
        if len(values) != num_rows:
            raise ValueError(f"{num_rows} rows but {len(values)} targets")
        if values.ndim != (2 if self.task == "multilabel" else 1):
            raise ValueError(f"targets of a {self.task} task have shape {values.shape}")
        if is_text:
            return values
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(f"the target of row {row} is {values[row]}: drop the rows without a label")
        return values if self.task == "regression" else self._class_indices(values)

    def _class_indices(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        num_classes = 2 if self.task != "multiclass" or self.num_classes is None else self.num_classes
        strangers = values[~np.isin(values, np.arange(num_classes))]
        if strangers.size:
            raise ValueError(f"target {strangers[0]} is not a class index; {self.task} expects 0 to {num_classes - 1}")
        return values.astype(np.int64)

    def _build_features(self, table: pd.DataFrame) -> ColumnTransformer:
        if self.chosen_estimator == "nearest_neighbour":
            if not self.kinds.texts:
                raise ValueError(f"text_to_text needs a text column, and {list(self._table.columns)} are none")
            return build_neighbour_features(table, self.kinds)
        if self.chosen_estimator == "boosting":
            return build_boosting_features(table, self.kinds, seed=self.seed)
        return build_linear_features(table, self.kinds, max_features=self.max_features, char_ngrams=self.char_ngrams)

    def _build_head(self) -> _Estimator:
        if self.task == "text_to_text":
            return _NearestNeighbour()
        if self.chosen_estimator == "linear":
            regressor = partial(Ridge, alpha=1.0 / self.strength)
            classifier = partial(_fit_logistic, strength=self.strength)
        else:
            # The feature matrix begins with the categories.
            settings = {"random_state": self.seed, "categorical_features": list(range(len(self.kinds.categories)))}
            regressor = partial(HistGradientBoostingRegressor, **settings)
            classifier = partial(_fit_boosting, settings=settings)
        heads: dict[str, _Estimator] = {
            "regression": regressor(),
            "multilabel": _OneVersusRest(classifier),
            "binary": _BinaryClassifier(classifier),
            "multiclass": _Classifier(classifier, self.num_classes or 2),
        }
        return heads[self.task]


def load_tabular_baseline(folder: Path) -> TabularBaseline:
    """Fits again what `save` wrote; the predictions are bit-equal to those of the saved baseline.

    Raises ValueError for a folder without one.
    """
    for name in ("baseline.json", "inputs.parquet", "targets.parquet"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name}, so no tabular baseline was saved there")
    settings = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
    targets = pd.read_parquet(folder / "targets.parquet").to_numpy()  # (N, K)
    single = targets[:, 0] if settings["task"] != "multilabel" else targets
    kinds = settings.pop("kinds", None)
    whole = None if kinds is None else ColumnKinds(**{kind: tuple(names) for kind, names in kinds.items()})
    return TabularBaseline(**settings).fit(pd.read_parquet(folder / "inputs.parquet"), single, whole=whole)
