"""Odd columns and odd classes: codes stay apart, columns of nothing are ignored, and a class of one row trains."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from components.tables.features import ColumnKinds, column_kinds, find_strangers
from components.tables.model import TabularBaseline, load_tabular_baseline

NUM_ROWS = 200
LARGE = 10_500  # above 10,000 rows boosting holds some back to see when to stop


def noise(num_rows=NUM_ROWS, seed=0):
    return np.random.default_rng(seed).normal(size=num_rows)


def build(task="binary", estimator="auto", num_classes=None):
    return TabularBaseline(task=task, num_classes=num_classes, estimator=estimator)


# -- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
@pytest.mark.parametrize(
    "codes",
    [
        ["007", "7"],
        ["00", "0"],
        ["1E5", "100000"],
        ["10e4", "1E5"],
        ["9007199254740992", "9007199254740993"],
        ["-9007199254740992", "-9007199254740993"],
        ["12345678901234567890123", "12345678901234567890124"],
    ],
)
def test_codes_that_one_number_would_stand_for_stay_apart(codes, estimator):
    which = np.random.default_rng(0).integers(0, 2, NUM_ROWS)
    table = pd.DataFrame({"code": [codes[index] for index in which], "x": noise()})
    assert column_kinds(table) == ColumnKinds(numbers=("x",), categories=("code",))
    predictions = build(estimator=estimator).fit(table, which).predict(table)
    assert ((predictions > 0.5) == which).all()


@pytest.mark.parametrize(
    "cells",
    [
        ["1.50", "1.5"], ["07.5", "7.5"], ["1e-05", "0.00001"], ["+7", "7"], [" 7", "7"], ["02134", "90210"],
        ["-0", "0"], ["1E5", "2E5"], ["9007199254740993", "1"], ["7", "007", "3.5"], ["0.12345678901234567", "3"],
    ],
)  # fmt: skip
def test_numbers_are_numbers_however_they_are_written(cells):
    table = pd.DataFrame({"x": cells * 20})
    assert column_kinds(table).numbers == ("x",)


def test_codes_of_many_values_are_a_category_and_no_text():
    table = pd.DataFrame({"code": [f"{index:05d}" for index in range(NUM_ROWS)] + ["7"], "y": range(NUM_ROWS + 1)})
    assert column_kinds(table).categories == ("code",)
    assert column_kinds(table, may_be_category=False).texts == ("code",)


def test_rows_beside_decide_too():
    train, test = pd.DataFrame({"code": ["007", "012"]}), pd.DataFrame({"code": ["7", "012"]})
    assert column_kinds(train).numbers == ("code",)
    assert column_kinds(train, beside=test).categories == ("code",)
    assert column_kinds(train, beside=train).numbers == ("code",)


# -- a part of a table -----------------------------------------------------------------------------------------------


def test_a_part_takes_no_words_for_numbers_or_dates_that_the_whole_has():
    whole = pd.DataFrame({"a": ["1", "2", "?", "4"], "b": ["2024-01-01", "", "2024-01-03", ""], "c": ["x", "", "", ""]})
    kinds = column_kinds(whole)
    assert kinds.by_column == {"b": "dates", "c": "categories", "a": "texts"}
    part = whole.iloc[[1, 3]]
    assert column_kinds(part).numbers == ("a", "b", "c")
    assert column_kinds(part, whole=kinds) == kinds


def test_the_kinds_of_the_whole_are_saved_where_the_part_alone_does_not_tell(tmp_path):
    whole = pd.DataFrame({"a": [*map(str, range(NUM_ROWS - 1)), "?"], "x": noise()})
    part, labels = whole[:-50], (whole["x"][:-50] > 0).astype(int)
    baseline = build().fit(part, labels, whole=column_kinds(whole))
    assert baseline.kinds.texts == ("a",)
    baseline.save(tmp_path / "with")
    again = load_tabular_baseline(tmp_path / "with")
    assert again.kinds == baseline.kinds
    assert again.predict(whole).tobytes() == baseline.predict(whole).tobytes()
    build().fit(part, labels).save(tmp_path / "without")
    assert "kinds" not in json.loads((tmp_path / "without" / "baseline.json").read_text(encoding="utf-8"))


def test_strangers_are_found_among_numbers_and_dates():
    train = pd.DataFrame({"n": ["1", ""], "d": ["2024-01-01", "NA"], "t": ["a b", "c"], "m": [1.0, np.nan]})
    test = pd.DataFrame({"n": ["7", "1,234", "n/a", "12%"], "d": ["", "31/01/2024", "2024/1/3", "soon"]})
    test = test.assign(t="1,234", m=2.0)
    found = [(s.column, s.kind, s.row, s.value, s.number) for s in find_strangers(test, column_kinds(train))]
    assert found == [("n", "numbers", 1, "1,234", 2), ("d", "dates", 1, "31/01/2024", 2)]
    assert find_strangers(train, column_kinds(train)) == []


def test_a_date_in_another_form_is_missing_and_not_guessed():
    days = pd.date_range("2024-01-01", periods=NUM_ROWS).strftime("%Y-%m-%d")
    baseline = build("regression", "linear").fit(pd.DataFrame({"day": days}), np.arange(NUM_ROWS, dtype=float))
    answers = baseline.predict(pd.DataFrame({"day": ["02/01/2024", ""]}))
    assert answers[0] == answers[1]


# -- columns of nothing ----------------------------------------------------------------------------------------------

NOTHING = {
    "empty": [""],
    "words for nothing": ["NA", "null", ""],
    "infinite": ["inf", "-inf"],
    "impossible dates": ["2024-13-45", "0000-00-00"],
    "numbers already": [np.nan],
}


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
@pytest.mark.parametrize("name", NOTHING)
def test_a_column_of_nothing_is_ignored(name, estimator):
    x = noise()
    table = pd.DataFrame({"x": x, "odd": np.resize(np.array(NOTHING[name], dtype=object), NUM_ROWS)})
    table["odd"] = table["odd"].astype(float) if name == "numbers already" else table["odd"]
    labels = (x > 0).astype(int)
    with_it = build(estimator=estimator).fit(table, labels).predict(table.assign(odd="5"))
    without = build(estimator=estimator).fit(table[["x"]], labels).predict(table[["x"]])
    if estimator == "boosting":
        assert with_it.tobytes() == without.tobytes()
    assert ((with_it > 0.5) == labels).mean() > 0.97
    assert ((without > 0.5) == labels).mean() > 0.97


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
def test_a_text_that_is_empty_in_a_part_is_ignored_there(estimator):
    x = noise()
    whole = pd.DataFrame({"x": x, "note": [f"words {row}" if row < 20 else " " for row in range(NUM_ROWS)]})
    kinds = ColumnKinds(numbers=("x",), texts=("note",))
    part, labels = whole[20:], (x > 0).astype(int)
    predictions = build(estimator=estimator).fit(part, labels[20:], whole=kinds).predict(whole)
    assert ((predictions > 0.5) == labels).mean() > 0.97


@pytest.mark.parametrize("estimator", ["linear", "boosting"])
@pytest.mark.parametrize("kind", ["numbers", "dates", "texts"])
def test_where_no_column_holds_anything_the_share_is_predicted(kind, estimator):
    kinds = ColumnKinds(**{kind: ("odd",)})
    labels = np.arange(NUM_ROWS) % 4 == 0
    baseline = build(estimator=estimator).fit(pd.DataFrame({"odd": [""] * NUM_ROWS}), labels, whole=kinds)
    assert baseline.predict(pd.DataFrame({"odd": ["", "5"]}))[0] == pytest.approx(0.25, abs=1e-3)


# -- classes of one row ----------------------------------------------------------------------------------------------


def large_classes(*rare):
    """Three classes in a large table, told apart by x, and some rows of a fourth."""
    x = noise(LARGE)
    classes = np.digitize(x, [-0.5, 0.5])
    for row in rare:
        classes[row] = 3
    return pd.DataFrame({"x": x}), classes


@pytest.mark.parametrize("rare", [(17,), (17, 4000)])
def test_a_class_of_one_or_two_rows_trains_in_a_large_table(rare):
    table, classes = large_classes(*rare)
    probabilities = build("multiclass", num_classes=4).fit(table, classes).predict(table)
    assert probabilities.shape == (LARGE, 4)
    assert (probabilities.argmax(axis=1) == classes).mean() > 0.99


def test_one_positive_trains_in_a_large_table():
    table, _ = large_classes()
    labels = np.zeros(LARGE)
    labels[17] = 1
    predictions = build().fit(table, labels).predict(table)
    assert 0 < predictions.mean() < 0.001
    both = np.stack([labels, table["x"] > 0], axis=1)
    predictions = build("multilabel").fit(table, both).predict(table)
    assert ((predictions[:, 1] > 0.5) == both[:, 1]).mean() > 0.99


def test_the_usual_classes_of_a_large_table_are_fitted_as_ever():
    table, classes = large_classes()
    found = build("multiclass", num_classes=3).fit(table, classes).predict(table)
    with threadpool_limits(limits=1):
        expected = HistGradientBoostingClassifier(random_state=0, categorical_features=[]).fit(
            table.to_numpy(), classes
        )
        assert expected.n_iter_ < 100
        assert found.tobytes() == expected.predict_proba(table.to_numpy()).tobytes()
