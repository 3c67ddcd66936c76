"""The table of metrics: how a competition scores predictions, and which way is better.

Every function takes (targets, predictions), checks them row by row, and returns one float. What a metric needs says
which form of prediction it scores: labels (classes, or 0/1 decisions), probabilities, values, or texts.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from components.metrics.text import (
    character_error_rate,
    chrf,
    exact_match,
    phoneme_error_rate,
    reciprocal_rank,
    word_accuracy,
)
from components.ranks import average_ranks

# Kaggle's: far enough from 0 and 1 that a certain but wrong prediction costs 34.5 and not infinity.
LOG_LOSS_CLIP = 1e-15


@dataclass(frozen=True)
class Metric:
    """One way to score: `function(targets, predictions)`; `needs` is labels, probabilities, values or texts."""

    name: str
    function: Callable[[Any, Any], float]
    greater_is_better: bool
    needs: str


def accuracy(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Share of rows whose predicted class is the true one; classes (N,) are numbers or texts."""
    truth, ours = _label_pair(targets, predictions)
    return float(np.mean(truth == ours))


def macro_f1(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Mean over the classes seen in targets or predictions (N,) of each class's F1; a class never hit scores 0."""
    truth, ours = _label_pair(targets, predictions)
    classes, codes = np.unique(np.concatenate([truth, ours]), return_inverse=True)
    true_codes, our_codes = codes[: len(truth)], codes[len(truth) :]
    count = partial(np.bincount, minlength=len(classes))
    hits = count(true_codes[true_codes == our_codes])
    return float(np.mean(2 * hits / (count(true_codes) + count(our_codes))))


def f_beta(targets: ArrayLike, decisions: ArrayLike, *, beta: float) -> float:
    """F-beta of 0/1 decisions, (N,) for one positive class or (N, C) multilabel, then over all cells at once (micro).

    Nothing found where nothing was to be found scores 0.
    """
    truth = _zeros_and_ones("targets", targets)
    ours = _zeros_and_ones("predictions", decisions)
    _check_shapes(truth, ours)
    hits = np.sum(truth * ours)
    total = beta**2 * truth.sum() + ours.sum()
    return float((1 + beta**2) * hits / total) if total else 0.0


def fit_threshold(targets: ArrayLike, probabilities: ArrayLike, beta: float = 1.0) -> float:
    """The threshold of best F-beta when `probabilities >= threshold` decides, over all distinct ones, in O(n log n).

    It lies halfway to the next lower probability, so that it transfers to other rows; of equally good ones the
    highest is taken. Without a positive target no threshold earns anything, and the answer is inf: never.
    """
    truth, scores = _zeros_and_ones("targets", targets), _numbers("predictions", probabilities)
    _check_shapes(truth, scores)
    if truth.ndim != 1:
        raise ValueError(f"targets: shape {truth.shape}; fit_thresholds fits each column of several")
    if not truth.any():
        return float("inf")
    order = np.argsort(-scores)
    scores, hits = scores[order], np.cumsum(truth[order])
    f_scores = (1 + beta**2) * hits / (beta**2 * hits[-1] + np.arange(1, len(hits) + 1))
    # Rows of equal probability are decided together: only the last of them is a possible cut.
    f_scores[:-1][scores[:-1] == scores[1:]] = -1.0
    best = int(np.argmax(f_scores))
    if best == len(scores) - 1:
        return float(scores[best])
    kept, left_out = scores[best], scores[best + 1]
    # Rounded to the caller's precision: numpy compares a float32 array with a Python float in float32.
    middle = ((kept + left_out) / 2).astype(_float_type(probabilities))
    return float(middle) if left_out < middle <= kept else float(kept)


def fit_thresholds(targets: ArrayLike, probabilities: ArrayLike, beta: float = 1.0) -> NDArray[np.float64]:
    """`fit_threshold` of each column: (N, C) multilabel targets and probabilities -> (C,)."""
    truth, scores = np.asarray(targets), np.asarray(probabilities)
    _check_shapes(truth, scores)
    return np.array([fit_threshold(truth[:, c], scores[:, c], beta) for c in range(truth.shape[1])])


def f_beta_fitted(targets: ArrayLike, probabilities: ArrayLike, *, beta: float) -> float:
    """F-beta at the threshold that suits these very rows, fitted per column for multilabel (N, C), then micro.

    An upper bound: on new rows the same threshold earns a little less, the more so the fewer the positives.
    """
    fit = fit_thresholds if np.ndim(targets) == 2 else fit_threshold
    return f_beta(targets, np.asarray(probabilities) >= fit(targets, probabilities, beta), beta=beta)


def auc(targets: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive outranks a negative, a tie counting half.

    (N,) for one positive class; (N, C) multilabel is the mean over columns. Scores need not be probabilities.
    """
    truth, ours = _zeros_and_ones("targets", targets), _numbers("predictions", scores)
    _check_shapes(truth, ours)
    if truth.ndim == 2:
        return float(np.mean([_auc_of_column(truth[:, c], ours[:, c], f" column {c}:") for c in range(truth.shape[1])]))
    return _auc_of_column(truth, ours)


def log_loss(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-probability (nats) of the truth.

    Binary: targets 0/1 and the positive's probability (N,). Multilabel: both (N, C), mean over cells. Multiclass:
    targets (N,) class indices and probabilities (N, C), each row divided by its sum. All are then clipped to
    [1e-15, 1 - 1e-15], as Kaggle does.
    """
    ours = _numbers("predictions", probabilities)
    outside = (ours < 0) | (ours > 1)
    if outside.any():
        raise ValueError(f"predictions: {_where(outside)} is {ours[outside][0]:g}, not a probability in [0, 1]")
    if ours.ndim == 2 and np.ndim(targets) == 1:
        ours = _probability_of_truth(targets, ours)
    else:
        truth = _zeros_and_ones("targets", targets)
        _check_shapes(truth, ours)
        ours = np.where(truth == 1, ours, 1 - ours)
    return float(-np.mean(np.log(np.clip(ours, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP))))


def rmse(targets: ArrayLike, values: ArrayLike) -> float:
    """Root of the mean squared error, in the unit of the targets; over all cells when there are several columns."""
    truth, ours = _numbers("targets", targets), _numbers("predictions", values)
    _check_shapes(truth, ours)
    return float(np.sqrt(np.mean((truth - ours) ** 2)))


def mae(targets: ArrayLike, values: ArrayLike) -> float:
    """Mean absolute error, in the unit of the targets; over all cells when there are several columns."""
    truth, ours = _numbers("targets", targets), _numbers("predictions", values)
    _check_shapes(truth, ours)
    return float(np.mean(np.abs(truth - ours)))


def quadratic_weighted_kappa(targets: ArrayLike, grades: ArrayLike) -> float:
    """Agreement of integer grades (N,) beyond chance, disagreement weighed by its square (Cohen 1968).

    Predictions are rounded, halves to the even grade; grades written as text ("4") are read as numbers. If both
    sides know one and the same grade only, the agreement is called 1.
    """
    truth, ours = _grades("targets", targets), np.rint(_grades("predictions", grades))
    _check_shapes(truth, ours)
    fraction = np.flatnonzero(truth != np.rint(truth))
    if len(fraction):
        raise ValueError(f"targets: row {fraction[0]} is {truth[fraction[0]]:g}; kappa compares whole grades")
    # No table of counts is needed: two independent grades differ, squared, by both variances and the means' gap.
    expected = np.var(truth) + np.var(ours) + (np.mean(truth) - np.mean(ours)) ** 2
    observed = np.mean((truth - ours) ** 2)
    return float(1 - observed / expected) if observed else 1.0


def mean_average_precision_at_k(
    targets: ArrayLike, predictions: NDArray[Any] | Sequence[str | Sequence[object]], *, k: int
) -> float:
    """Mean over rows of 1 / rank of the one true label among the first k guesses, 0 when it is not there.

    Args:
        targets: (N,) labels; class indices where predictions are probabilities.
        predictions: (N, C) floats, ranked here (equal ones by class index), or per row a ranked list of labels or one
            text of labels separated by spaces, as in Kaggle's submissions. A guess said twice takes up two ranks.
        k: how many guesses count.
    """
    if isinstance(predictions, np.ndarray) and predictions.ndim == 2 and predictions.dtype.kind == "f":
        order = np.argsort(-_numbers("predictions", predictions), axis=1, kind="stable")
        truth: list[Any] = _class_indices(targets, predictions).tolist()
        guesses: list[list[Any]] = order[:, :k].tolist()
    else:
        truth = [str(label) for label in _labels("targets", targets).tolist()]
        guesses = [_ranked_labels(guess, row)[:k] for row, guess in enumerate(predictions)]
        _check_lengths(truth, guesses)
    pairs = zip(truth, guesses, strict=True)
    return sum(1 / (1 + ranked.index(label)) for label, ranked in pairs if label in ranked) / len(truth)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, True, "labels"),
        Metric("macro_f1", macro_f1, True, "labels"),
        Metric("f1", partial(f_beta, beta=1.0), True, "labels"),
        Metric("f2", partial(f_beta, beta=2.0), True, "labels"),
        Metric("f1_fitted", partial(f_beta_fitted, beta=1.0), True, "probabilities"),
        Metric("f2_fitted", partial(f_beta_fitted, beta=2.0), True, "probabilities"),
        Metric("auc", auc, True, "probabilities"),
        Metric("log_loss", log_loss, False, "probabilities"),
        Metric("map_at_3", partial(mean_average_precision_at_k, k=3), True, "probabilities"),
        Metric("map_at_5", partial(mean_average_precision_at_k, k=5), True, "probabilities"),
        Metric("rmse", rmse, False, "values"),
        Metric("mae", mae, False, "values"),
        Metric("qwk", quadratic_weighted_kappa, True, "labels"),
        Metric("exact_match", exact_match, True, "texts"),
        Metric("word_accuracy", word_accuracy, True, "texts"),
        Metric("cer", character_error_rate, False, "texts"),
        Metric("per", phoneme_error_rate, False, "texts"),
        Metric("chrf", chrf, True, "texts"),
        Metric("mrr_at_10", partial(reciprocal_rank, depth=10), True, "texts"),
        Metric("recall_at_1", partial(reciprocal_rank, depth=1), True, "texts"),
    )
}
"""Every metric by its name. Names keep to what MLflow accepts, hence map_at_3 and not map@3."""


def _auc_of_column(truth: NDArray[np.float64], scores: NDArray[np.float64], place: str = "") -> float:
    num_positives = int(truth.sum())
    num_negatives = len(truth) - num_positives
    if num_positives == 0 or num_negatives == 0:
        raise ValueError(
            f"targets:{place} all {len(truth)} rows are {truth[0]:g}; AUC needs both classes (stratify the folds)"
        )
    # Mann-Whitney: the positives' ranks, less what they would have among themselves, count the pairs they win.
    wins = average_ranks(scores)[truth == 1].sum() - num_positives * (num_positives + 1) / 2
    return float(wins / (num_positives * num_negatives))


def _probability_of_truth(targets: ArrayLike, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each row gives its true class, rows brought to sum 1: (N,) and (N, C) -> (N,)."""
    classes = _class_indices(targets, probabilities)
    sums = probabilities.sum(axis=1)
    if not sums.all():
        raise ValueError(f"predictions: row {np.flatnonzero(sums == 0)[0]} gives every class probability 0")
    picked: NDArray[np.float64] = probabilities[np.arange(len(classes)), classes] / sums
    return picked


def _class_indices(targets: ArrayLike, probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Targets (N,) as columns of probabilities (N, C)."""
    classes = _labels("targets", targets)
    _check_lengths(classes, probabilities)
    num_classes = probabilities.shape[1]
    wrong = np.flatnonzero(~np.isin(classes, np.arange(num_classes)))
    if len(wrong):
        found = classes.tolist()[wrong[0]]
        raise ValueError(f"targets: row {wrong[0]} is {found!r}, not a class index from 0 to {num_classes - 1}")
    return classes.astype(np.int64)


def _ranked_labels(guess: object, row: int) -> list[str]:
    """One row's guesses as texts, so that the 7 of a table meets the "7" of a submission."""
    if isinstance(guess, str):
        return guess.split()
    if not isinstance(guess, Collection):
        raise ValueError(f"predictions: row {row} is {guess!r}, neither a ranked list nor labels separated by spaces")
    return [str(label) for label in guess]


def _label_pair(targets: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    truth, ours = _labels("targets", targets), _labels("predictions", predictions)
    _check_shapes(truth, ours)
    if (truth.dtype.kind == "O") != (ours.dtype.kind == "O"):
        raise ValueError(f"targets hold {truth[0]!r} and predictions {ours[0]!r}: text never equals a number")
    return truth, ours


def _labels(name: str, values: ArrayLike) -> NDArray[Any]:
    """Classes (N,): an object array of texts, or an array of numbers."""
    array = _array(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: shape {array.shape}; expected one label per row, (N,)")
    if array.dtype.kind in "iu":
        return array
    rows = array.tolist()
    is_text = [isinstance(value, str) for value in rows]
    if not any(is_text):
        return _numbers(name, array)
    if not all(is_text):
        row = is_text.index(False)
        raise ValueError(f"{name}: row {row} is {rows[row]!r} among texts")
    return np.array(rows, dtype=object)


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Finite numbers (N,) or (N, C)."""
    array = _array(values)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name}: shape {array.shape}; expected rows (N,) or (N, C)")
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        is_number = np.vectorize(_is_number, otypes=[bool])(array)
        raise ValueError(f"{name}: {_where(~is_number)} is {array[~is_number][0]!r}, not a number") from None
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise ValueError(f"{name}: {_where(bad)} is {numbers[bad][0]} ({bad.sum()} such in all)")
    return numbers


def _array(values: ArrayLike) -> NDArray[Any]:
    """As numpy has it, but a list of texts and gaps keeps its gaps: numpy would turn NaN into the text "nan"."""
    array = np.asarray(values)
    return np.asarray(values, dtype=object) if array.dtype.kind == "U" and array is not values else array


def _is_number(value: Any) -> bool:  # noqa: ANN401
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _zeros_and_ones(name: str, values: ArrayLike) -> NDArray[np.float64]:
    numbers = _numbers(name, values)
    other = (numbers != 0) & (numbers != 1)
    if other.any():
        raise ValueError(f"{name}: {_where(other)} is {numbers[other][0]:g}; expected 0 or 1")
    return numbers


def _grades(name: str, values: ArrayLike) -> NDArray[np.float64]:
    labels = _labels(name, values)
    if labels.dtype.kind != "O":
        return _numbers(name, labels)
    try:
        return _numbers(name, labels.astype(np.float64))
    except ValueError:
        raise ValueError(
            f"{name}: kappa needs grades that are whole numbers, got texts such as {labels[0]!r}"
        ) from None


def _float_type(values: ArrayLike) -> np.dtype[Any]:
    kind = np.asarray(values).dtype
    return kind if kind.kind == "f" else np.dtype(np.float64)


def _check_lengths(targets: Sequence[Any] | NDArray[Any], predictions: Sequence[Any] | NDArray[Any]) -> None:
    if len(targets) != len(predictions):
        raise ValueError(
            f"targets have {len(targets)} rows, predictions {len(predictions)}; both must be the same rows"
        )


def _check_shapes(targets: NDArray[Any], predictions: NDArray[Any]) -> None:
    _check_lengths(targets, predictions)
    if targets.shape != predictions.shape:
        raise ValueError(f"targets have shape {targets.shape}, predictions {predictions.shape}; they must agree")


def _where(mask: NDArray[np.bool_]) -> str:
    """The first place where the mask holds, in words."""
    first = np.argwhere(mask)[0]
    return f"row {first[0]}" if mask.ndim == 1 else f"row {first[0]}, column {first[1]}"
