"""The baseline reads any table, beats a constant on every task, and comes back from its folder bit for bit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score

from components.tables.features import column_kinds
from components.tables.model import TabularBaseline, load_tabular_baseline

NUM_ROWS = 240


@pytest.fixture
def table() -> pd.DataFrame:
    """Every kind of column, with holes, as a reader that keeps strings hands it over."""
    generator = np.random.default_rng(0)
    words = np.array(["rain", "sun", "storm", "cloud", "wind", "frost"])
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 700, NUM_ROWS), unit="D")
    size = generator.normal(size=NUM_ROWS)
    return pd.DataFrame(
        {
            "size": size,
            "weight": [f"{value:.3f}" if index % 9 else "" for index, value in enumerate(size * 2)],
            "seen": [f"{day:%Y-%m-%d}" for day in days],
            "city": generator.choice(["Kyiv", "Pune", "NA"], NUM_ROWS),
            "report": [" ".join(generator.choice(words, 5)) + f" no {index}" for index in range(NUM_ROWS)],
        }
    )


def targets_of(task: str, table: pd.DataFrame) -> object:
    score = table["size"].to_numpy() + (table["city"] == "Pune").to_numpy() * 1.5
    stormy = table["report"].str.contains("storm").to_numpy().astype(int)
    return {
        "regression": 3.0 * score + stormy,
        "binary": (score > 0.5).astype(int),
        "multiclass": np.digitize(score, [-0.3, 1.0]),
        "multilabel": np.stack([(score > 0.5).astype(int), stormy], axis=1),
        "text_to_text": [f"{city} {report}" for city, report in zip(table["city"], table["report"], strict=True)],
    }[task]


def build(task: str, estimator: str = "auto") -> TabularBaseline:
    return TabularBaseline(task=task, num_classes=3 if task == "multiclass" else None, estimator=estimator)


def test_columns_are_typed_by_their_values(table):
    kinds = column_kinds(table.assign(alive=table["size"] > 0, empty=""))
    assert kinds.numbers == ("size", "weight", "alive", "empty")
    assert kinds.dates == ("seen",)
    assert kinds.categories == ("city",)
    assert kinds.texts == ("report",)


def test_many_repeated_single_words_are_a_category_and_repeated_sentences_a_text():
    cities = pd.DataFrame({"city": [f"town{index % 300}" for index in range(900)]})
    assert column_kinds(cities).categories == ("city",)
    assert column_kinds(cities, may_be_category=False).texts == ("city",)
    assert column_kinds("the lovely town of " + cities).texts == ("city",)


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_the_dtype_of_the_reader_changes_nothing(table, dtype):
    labels = targets_of("binary", table)
    expected = build("binary", "linear").fit(table, labels).predict(table)
    table = table.assign(**{name: table[name].astype(dtype) for name in ("weight", "seen", "city", "report")})
    np.testing.assert_array_equal(build("binary", "linear").fit(table, labels).predict(table), expected)


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
def test_regression_beats_the_mean(table, estimator):
    values = targets_of("regression", table)
    predictions = build("regression", estimator).fit(table[:160], values[:160]).predict(table[160:])
    assert predictions.shape == (80,)
    assert mean_squared_error(values[160:], predictions) < 0.5 * np.var(values[160:])


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
def test_binary_and_multilabel_rank_far_above_chance(table, estimator):
    labels = targets_of("binary", table)
    probabilities = build("binary", estimator).fit(table[:160], labels[:160]).predict(table[160:])
    assert probabilities.shape == (80,)
    assert roc_auc_score(labels[160:], probabilities) > 0.85
    labels = targets_of("multilabel", table)
    probabilities = build("multilabel", estimator).fit(table[:160], labels[:160]).predict(table[160:])
    assert probabilities.shape == (80, 2)
    assert roc_auc_score(labels[160:], probabilities, average=None).min() > 0.7


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
def test_multiclass_beats_the_class_shares(table, estimator):
    labels = targets_of("multiclass", table)
    probabilities = build("multiclass", estimator).fit(table[:160], labels[:160]).predict(table[160:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    shares = np.tile(np.bincount(labels[:160]) / 160, (80, 1))
    assert log_loss(labels[160:], probabilities) < 0.7 * log_loss(labels[160:], shares)


def test_a_class_that_a_fold_lacks_has_probability_zero(table):
    probabilities = TabularBaseline(task="multiclass", num_classes=4).fit(table, targets_of("multiclass", table))
    probabilities = probabilities.predict(table)
    assert probabilities.shape == (NUM_ROWS, 4)
    assert (probabilities[:, 3] == 0).all()


def test_a_label_that_never_varies_is_predicted_as_it_is(table):
    np.testing.assert_array_equal(build("binary").fit(table, np.zeros(NUM_ROWS)).predict(table[:3]), [0, 0, 0])
    np.testing.assert_array_equal(build("binary").fit(table, np.ones(NUM_ROWS)).predict(table[:3]), [1, 1, 1])


def test_the_nearest_neighbour_answers_in_the_right_language():
    pairs = [("Germany", "de", "Deutschland"), ("Germany", "fr", "Allemagne"), ("Greece", "de", "Griechenland")]
    pairs += [("Greece", "fr", "Grèce"), ("Hungary", "de", "Ungarn"), ("Hungary", "fr", "Hongrie")]
    known = pd.DataFrame(pairs, columns=["name", "language", "answer"])
    baseline = build("text_to_text").fit(known[["name", "language"]], list(known["answer"]))
    asked = pd.DataFrame({"name": ["Grece", "West Germany", "Hungary"], "language": ["fr", "de", "fr"]})
    assert baseline.predict(asked) == ["Grèce", "Deutschland", "Hongrie"]


@pytest.mark.parametrize(
    ("columns", "estimator", "chosen"),
    [
        (["size", "city", "seen"], "auto", "boosting"),
        (["size", "report"], "auto", "linear"),
        (["size", "report"], "boosting", "boosting"),
        (["size"], "linear", "linear"),
    ],
)
def test_auto_boosts_tables_without_free_text(table, columns, estimator, chosen):
    baseline = build("binary", estimator).fit(table[columns], targets_of("binary", table))
    assert baseline.chosen_estimator == chosen


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "text_to_text"])
def test_predictions_after_loading_are_bit_equal(table, tmp_path, task, estimator):
    baseline = build(task, estimator).fit(table[:160], targets_of(task, table[:160]))
    baseline.save(tmp_path / "baseline")
    assert {file.name for file in (tmp_path / "baseline").iterdir()} == {
        "baseline.json",
        "inputs.parquet",
        "targets.parquet",
    }
    again = load_tabular_baseline(tmp_path / "baseline").predict(table[160:])
    before = baseline.predict(table[160:])
    assert list(again) == before if task == "text_to_text" else again.tobytes() == before.tobytes()


def test_unseen_values_and_new_holes_are_read(table):
    baseline = build("regression", "linear").fit(table, targets_of("regression", table))
    stranger = pd.DataFrame({"size": [np.inf], "weight": ["?"], "seen": ["soon"], "city": ["Oslo"], "report": [None]})
    assert np.isfinite(baseline.predict(stranger)).all()
    with pytest.raises(ValueError, match="no column 'city'"):
        baseline.predict(stranger.drop(columns="city"))


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        ("binary", [0, 1, 2], "target 2.0 is not a class index; binary expects 0 to 1"),
        ("regression", [0.0, np.nan, 1.0], "the target of row 1 is nan"),
        ("regression", [0.0, 1.0], "3 rows but 2 targets"),
        ("multilabel", [0, 1, 0], r"multilabel task have shape \(3,\)"),
    ],
)
def test_wrong_targets_are_named(table, task, targets, message):
    with pytest.raises(ValueError, match=message):
        build(task).fit(table[:3], targets)


def test_wrong_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="task: 'ranking' is unknown"):
        TabularBaseline(task="ranking")
    with pytest.raises(ValueError, match="estimator: 'forest' is unknown"):
        TabularBaseline(task="binary", estimator="forest")
    with pytest.raises(ValueError, match="num_classes: None"):
        TabularBaseline(task="multiclass")
    with pytest.raises(ValueError, match=r"no baseline\.json"):
        load_tabular_baseline(Path(tmp_path))
