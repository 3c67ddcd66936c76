"""Every metric against scikit-learn or against the slow form of its definition, on data with ties."""

import math
import random

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference

from components.metrics.table import METRICS, f_beta, fit_threshold, fit_thresholds
from components.metrics.text import edit_distance


def score(name, targets, predictions):
    return METRICS[name].function(targets, predictions)


@pytest.fixture(params=range(3))
def rng(request):
    return np.random.default_rng(request.param)


def test_table_is_whole_and_says_which_way_is_better():
    assert list(METRICS) == [
        "accuracy", "macro_f1", "f1", "f2", "f1_fitted", "f2_fitted", "auc", "log_loss", "map_at_3", "map_at_5",
        "rmse", "mae", "qwk", "exact_match", "word_accuracy", "cer", "per", "chrf",
        "mrr_at_10", "recall_at_1",
    ]  # fmt: skip
    assert {name for name, metric in METRICS.items() if not metric.greater_is_better} == {
        "log_loss", "rmse", "mae", "cer", "per",
    }  # fmt: skip
    assert {metric.needs for metric in METRICS.values()} == {"labels", "probabilities", "values", "texts"}
    assert all(name == metric.name for name, metric in METRICS.items())


# Classes


@pytest.mark.parametrize("as_text", [False, True])
def test_accuracy_and_macro_f1_equal_scikit_learns(rng, as_text):
    targets, predictions = rng.integers(0, 4, 200), rng.integers(1, 6, 200)  # neither side knows all classes
    if as_text:
        targets, predictions = np.array(list("abcdef"))[targets], pd.Series(np.array(list("abcdef"))[predictions])
    assert score("accuracy", targets, predictions) == reference.accuracy_score(targets, predictions)
    expected = reference.f1_score(targets, predictions, average="macro", zero_division=0)
    assert score("macro_f1", targets, predictions) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "beta"), [("f1", 1), ("f2", 2)])
def test_f_beta_equals_scikit_learns_binary_and_micro(rng, name, beta):
    targets, decisions = rng.integers(0, 2, 100), rng.integers(0, 2, 100)
    assert score(name, targets, decisions) == pytest.approx(reference.fbeta_score(targets, decisions, beta=beta))
    targets, decisions = targets.reshape(25, 4), decisions.reshape(25, 4)
    expected = reference.fbeta_score(targets, decisions, beta=beta, average="micro")
    assert score(name, targets, decisions) == pytest.approx(expected)
    assert score(name, np.zeros(5), np.zeros(5)) == 0.0


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fitted_threshold_is_best_of_all(rng, beta, dtype):
    targets, probabilities = rng.integers(0, 2, 60), rng.random(60).round(1).astype(dtype)
    threshold = fit_threshold(targets, probabilities, beta)
    tried = {t: f_beta(targets, probabilities >= t, beta=beta) for t in np.unique(probabilities)}
    assert f_beta(targets, probabilities >= threshold, beta=beta) == pytest.approx(max(tried.values()), abs=1e-12)
    first_best = max(t for t, value in tried.items() if value == max(tried.values()))
    np.testing.assert_array_equal(probabilities >= threshold, probabilities >= first_best)


def test_fitted_threshold_by_hand():
    assert fit_threshold([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9]) == 0.5  # halfway between what is kept and what is not
    assert fit_threshold([1, 1, 1], [0.2, 0.7, 0.3]) == 0.2  # all kept: the lowest itself
    assert fit_threshold([0, 0], [0.2, 0.7]) == math.inf  # nothing to be found
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))  # no float32 lies between them
    scores = np.array([low, high])
    assert (scores >= fit_threshold([0, 1], scores)).tolist() == [False, True]


def test_fitted_f_beta_of_several_labels_fits_each_column_then_pools(rng):
    targets, probabilities = rng.integers(0, 2, (50, 3)), rng.random((50, 3)).round(2)
    targets[:, 2] = 0  # a label that never occurs costs nothing
    thresholds = fit_thresholds(targets, probabilities, 2.0)
    assert thresholds.tolist() == [fit_threshold(targets[:, c], probabilities[:, c], 2.0) for c in range(3)]
    expected = reference.fbeta_score(targets, probabilities >= thresholds, beta=2, average="micro")
    assert score("f2_fitted", targets, probabilities) == pytest.approx(expected)
    assert score("f1_fitted", [0, 1, 1], [0.1, 0.2, 0.3]) == 1.0


# Probabilities


def test_auc_equals_scikit_learns_and_the_count_of_pairs(rng):
    targets, scores = rng.integers(0, 2, 80), rng.integers(-3, 4, 80)
    pairs = [(p > n) + (p == n) / 2 for p in scores[targets == 1] for n in scores[targets == 0]]
    assert score("auc", targets, scores) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert score("auc", targets, scores) == pytest.approx(reference.roc_auc_score(targets, scores), abs=1e-12)
    columns, several = rng.integers(0, 2, (40, 3)), rng.random((40, 3)).round(1)
    assert score("auc", columns, several) == pytest.approx(reference.roc_auc_score(columns, several), abs=1e-12)


def test_log_loss_equals_scikit_learns(rng):
    positive = rng.random(50)
    binary = rng.integers(0, 2, 50)
    assert score("log_loss", binary, positive) == pytest.approx(reference.log_loss(binary, positive), abs=1e-12)
    classes, probabilities = rng.integers(0, 4, 50), rng.dirichlet(np.ones(4), 50)
    expected = reference.log_loss(classes, probabilities, labels=range(4))
    assert score("log_loss", classes, probabilities) == pytest.approx(expected, abs=1e-12)
    assert score("log_loss", classes, probabilities / 2) == pytest.approx(expected, abs=1e-12)  # rows are rescaled
    cells, answers = rng.random((20, 3)), rng.integers(0, 2, (20, 3))
    expected = reference.log_loss(answers.ravel(), cells.ravel())
    assert score("log_loss", answers, cells) == pytest.approx(expected, abs=1e-12)


def test_log_loss_clips_certainty_as_kaggle_does():
    assert score("log_loss", [1], [0.0]) == pytest.approx(-math.log(1e-15))
    assert score("log_loss", [0], np.array([[0.0, 1.0]])) == pytest.approx(-math.log(1e-15))
    assert 0 < score("log_loss", [1, 0], [1.0, 0.0]) < 2e-15


@pytest.mark.parametrize("k", [3, 5])
def test_map_at_k_equals_its_definition_in_each_form(rng, k):
    targets, probabilities = rng.integers(0, 8, 60), rng.random((60, 8))
    ranked = np.argsort(-probabilities, axis=1)
    ranks = [list(row).index(target) + 1 for target, row in zip(targets, ranked, strict=True)]
    expected = pytest.approx(np.mean([1 / rank if rank <= k else 0.0 for rank in ranks]), abs=1e-12)
    assert score(f"map_at_{k}", targets, probabilities) == expected
    assert score(f"map_at_{k}", targets, ranked) == expected
    assert score(f"map_at_{k}", targets, [" ".join(map(str, row)) for row in ranked]) == expected


def test_map_at_k_by_hand():
    assert (
        score("map_at_3", ["a", "b", "c", "d"], [["a"], ["x", "b"], ["y", "y", "c"], ["1", "2", "3", "d"]])
        == (1 + 1 / 2 + 1 / 3 + 0) / 4
    )
    assert score("map_at_3", [0, 1, 3], np.full((3, 4), 0.25)) == (1 + 1 / 2 + 0) / 3  # ties go by class index


# Values and grades


def test_rmse_and_mae_equal_scikit_learns(rng):
    targets, values = rng.normal(size=40), rng.normal(size=40).astype(np.float32)
    assert score("rmse", targets, values) == pytest.approx(
        reference.root_mean_squared_error(targets, values), rel=1e-12
    )
    assert score("mae", targets, values) == pytest.approx(reference.mean_absolute_error(targets, values), rel=1e-12)
    assert score("rmse", [[0, 0]], [[3, 4]]) == pytest.approx(math.sqrt(12.5))


def test_kappa_equals_scikit_learns_and_rounds(rng):
    targets, grades = rng.integers(0, 5, 100), rng.integers(0, 7, 100)
    expected = pytest.approx(reference.cohen_kappa_score(targets, grades, weights="quadratic"), abs=1e-12)
    assert score("qwk", targets, grades) == expected
    assert score("qwk", targets, grades + rng.uniform(-0.49, 0.49, 100)) == expected
    assert score("qwk", targets.astype(str), grades) == expected
    assert score("qwk", [2, 2], [2, 2]) == 1.0
    assert score("qwk", [1, 2, 3], [2, 2, 2]) == 0.0


# Texts


def slow_edit_distance(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    table[:, 0], table[0] = range(len(first) + 1), range(len(second) + 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = min(table[i, j] + (a != b), table[i, j + 1] + 1, table[i + 1, j] + 1)
    return int(table[-1, -1])


def test_edit_distance_equals_the_table():
    draw = random.Random(0)
    for _ in range(300):
        first, second = ("".join(draw.choices("abcü", k=draw.randint(0, 12))) for _ in range(2))
        assert edit_distance(first, second) == slow_edit_distance(first, second), (first, second)
    long, other = "ab" * 100, "ba" * 90  # longer than a machine word
    assert edit_distance(long, other) == slow_edit_distance(long, other)
    assert edit_distance(["K", "AE1", "T"], ["K", "AE1"]) == 1


def test_error_rates_count_the_nearest_reference():
    assert score("cer", ["abcd", "xy"], ["abxd", "xyz"]) == 2 / 6
    assert score("cer", [["abcd", "zzzzzz"], "xy"], ["abcd", "xy"]) == 0.0
    assert score("cer", ["a"], ["bcd"]) == 3.0
    # Both references are one edit away: the longer is the denominator, wherever it stands.
    assert score("cer", [["ab", "abcd"]], ["abc"]) == score("cer", [["abcd", "ab"]], ["abc"]) == 1 / 4
    assert score("per", ["K AE1 T", ("D AO1 G", "D AA1 G")], ["K  AE1 T", "D AA1"]) == 1 / 6
    assert score("exact_match", ["K AE1 T", ("D AO1 G", "D AA1 G")], ["K  AE1 T", "D AA1 G"]) == 1 / 2
    assert score("word_accuracy", ["K AE1 T", ("D AO1 G", "D AA1 G")], ["K  AE1 T", "D AA1 G"]) == 1.0
    assert score("word_accuracy", pd.Series(["A B", "C"], index=[7, 3]), pd.Series(["AB", "C"])) == 1 / 2


def slow_chrf(targets, predictions):
    """The formula as printed: CHRF = (1 + β²) CHRP CHRR / (β² CHRP + CHRR), both averaged over n-gram orders."""
    precisions, recalls = [], []
    for order in range(1, 7):
        ours = theirs = common = 0
        for target, prediction in zip(targets, predictions, strict=True):
            texts = ("".join(text.split()) for text in (prediction, target))
            ngrams, wanted = ([t[i : i + order] for i in range(len(t) - order + 1)] for t in texts)
            ours += len(ngrams) if wanted else 0
            theirs += len(wanted)
            for ngram in ngrams:
                if ngram in wanted:
                    wanted.remove(ngram)
                    common += 1
        if ours and theirs:
            precisions.append(common / ours)
            recalls.append(common / theirs)
    precision, recall = (float(np.mean(x)) if x else 0.0 for x in (precisions, recalls))
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def test_chrf_equals_its_formula():
    draw = random.Random(0)
    for _ in range(100):
        size = draw.randint(1, 4)
        targets, predictions = (
            ["".join(draw.choices("ab c", k=draw.randint(0, 12))) for _ in range(size)] for _ in "tp"
        )
        assert score("chrf", targets, predictions) == pytest.approx(slow_chrf(targets, predictions), abs=1e-12)


def test_chrf_known_values():
    # What sacrebleu 2.6.0 prints, over 100; it is not installed here.
    targets = ["the cat sat on the mat", "Київ"]
    assert score("chrf", targets, ["the cat is on a mat", "Києв"]) == pytest.approx(33.93498832129019 / 100, abs=1e-12)
    several = [["the cat sat on the mat", "a cat was on a mat"], ["Київ", "Києв"]]
    assert score("chrf", several, ["the cat is on a mat", "Києв"]) == pytest.approx(52.67180365394212 / 100, abs=1e-12)
    assert score("chrf", ["a b"], ["ab"]) == 1.0
    assert score("chrf", ["abc"], ["xyz"]) == score("chrf", ["abc"], [""]) == 0.0


# What users get wrong


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "targets", "predictions", "message"),
    [
        ("rmse", [1.0, 2.0, 3.0], [1.0, NAN, NAN], r"predictions: row 1 is nan \(2 such in all\)"),
        ("mae", [1.0, math.inf], [1.0, 2.0], r"targets: row 1 is inf"),
        ("mae", [1.0, 2.0], [1.0, "x"], r"predictions: row 1 is 'x', not a number"),
        ("mae", [1.0, 2.0], np.array([1.0, None], dtype=object), r"predictions: row 1 is nan"),
        ("auc", [[0, 1], [1, 0]], [[0.1, 0.2], [0.3, NAN]], r"predictions: row 1, column 1 is nan"),
        ("auc", [1, 1, 1], [0.1, 0.2, 0.3], r"targets: all 3 rows are 1; AUC needs both classes"),
        ("auc", [[0, 0], [1, 0]], [[0.1, 0.2], [0.3, 0.4]], r"targets: column 1: all 2 rows are 0"),
        ("auc", [0, 2], [0.1, 0.2], r"targets: row 1 is 2; expected 0 or 1"),
        ("rmse", [1, 2, 3], [1, 2], r"targets have 3 rows, predictions 2"),
        ("rmse", [1, 2], [[1], [2]], r"targets have shape \(2,\), predictions \(2, 1\)"),
        ("rmse", [], [], r"targets: shape \(0,\)"),
        ("accuracy", [], [], r"targets: shape \(0,\)"),
        ("accuracy", np.zeros(0, dtype=int), np.zeros(0, dtype=int), r"targets: shape \(0,\)"),
        ("accuracy", ["a"], [["a"]], r"predictions: shape \(1, 1\); expected one label per row"),
        ("accuracy", ["a", "b"], ["a", NAN], r"predictions: row 1 is nan among texts"),
        ("accuracy", [0, 1], ["0", "1"], r"targets hold .*0.* and predictions '0': text never equals a number"),
        ("macro_f1", [0, 1], [0.0, NAN], r"predictions: row 1 is nan"),
        ("f1", [0, 1], [0.2, 0.7], r"predictions: row 0 is 0.2; expected 0 or 1"),
        ("f1_fitted", [0, 1, 1], [0.2, 0.7], r"targets have 3 rows, predictions 2"),
        ("f1_fitted", [0, 1], [0.2, NAN], r"predictions: row 1 is nan"),
        ("f1_fitted", [[0, 1]], [0.2], r"targets have shape \(1, 2\), predictions \(1,\)"),
        ("log_loss", [0, 1], [0.2, 1.5], r"predictions: row 1 is 1.5, not a probability"),
        ("log_loss", [0, 3], np.full((2, 3), 1 / 3), r"targets: row 1 is 3, not a class index from 0 to 2"),
        ("log_loss", ["a"], np.full((1, 3), 1 / 3), r"targets: row 0 is 'a', not a class index"),
        ("log_loss", [0, 1], np.array([[1.0, 0.0], [0.0, 0.0]]), r"predictions: row 1 gives every class probability 0"),
        ("map_at_3", [0, 1], np.array([[0.5, NAN], [0.5, 0.5]]), r"predictions: row 0, column 1 is nan"),
        ("map_at_3", ["a", "b"], ["a", NAN], r"predictions: row 1 is nan, neither a ranked list"),
        ("map_at_5", ["a", "b"], [["a"]], r"targets have 2 rows, predictions 1"),
        ("qwk", [0.5, 1], [0, 1], r"targets: row 0 is 0.5; kappa compares whole grades"),
        ("qwk", ["low", "high"], ["low", "high"], r"targets: kappa needs grades .* such as 'low'"),
        ("cer", ["a", "b"], ["a", NAN], r"predictions: row 1 is nan, not a text"),
        ("cer", ["a", 3], ["a", "b"], r"targets: row 1 is 3, neither a text nor a list"),
        ("per", [["a"], []], ["a", "b"], r"targets: row 1 has no reference"),
        ("per", ["", " "], ["a", "b"], r"targets: every nearest reference is empty"),
        ("exact_match", ["a"], ["a", "b"], r"targets have 1 rows, predictions 2"),
        ("chrf", [], [], r"targets: no rows"),
        ("chrf", "abc", "abc", r"got a single text"),
    ],
)
def test_errors_say_what_and_where(name, targets, predictions, message):
    with pytest.raises(ValueError, match=message):
        score(name, targets, predictions)
