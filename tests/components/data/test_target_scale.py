"""Targets in units of their own spread: exact numbers, the way back, and the file beside the weights."""

import json
import math
import random

import numpy as np
import pytest

from components.data.target_scale import (
    TARGETS_FILE,
    TargetScale,
    load_target_scale,
    measure_targets,
    save_target_scale,
)


def test_mean_and_standard_deviation_are_those_of_the_rows():
    scale = measure_targets([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert scale == TargetScale(5.0, 2.0)
    assert scale.standardise([1.0, 5.0, 10.0]).tolist() == [-2.0, 0.0, 2.5]
    assert scale.restore([-2.0, 0.0, 2.5]).tolist() == [1.0, 5.0, 10.0]


def test_the_order_of_the_rows_changes_no_bit():
    values = np.random.default_rng(0).normal(180_000, 50_000, 5_000).tolist()
    expected = measure_targets(values)
    for seed in range(3):
        random.Random(seed).shuffle(values)
        assert measure_targets(values) == expected
    assert expected.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert expected.std == pytest.approx(np.std(values), rel=1e-12)


@pytest.mark.parametrize("value", [0.1, 3.0, 0.0, -1e300, 1e-300, 20_240_131.0])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_equal_targets_become_zero_and_come_back_as_they_were(value, count):
    scale = measure_targets([value] * count)
    assert scale == TargetScale(value, 0.0)
    assert scale.standardise([value, value + 1.0]).tolist() == [0.0, 0.0]
    # Whatever a model says of them
    assert scale.restore([[0.7], [-3.0]]).tolist() == [[value], [value]]


@pytest.mark.parametrize("unit", [1e-300, 1e-5, 1.0, 1e5, 1e300, 1.7e308])
def test_no_size_of_target_overflows_or_vanishes(unit):
    targets = np.array([-1.0, -0.5, 0.5, 1.0]) * unit
    scale = measure_targets(targets)
    assert scale.mean == 0.0
    assert scale.std == pytest.approx(math.sqrt(0.625) * unit, rel=1e-14)
    learnt = scale.standardise(targets)
    assert learnt == pytest.approx(np.array([-1.0, -0.5, 0.5, 1.0]) / math.sqrt(0.625), rel=1e-14)
    assert scale.restore(learnt) == pytest.approx(targets, rel=1e-14)


def test_small_differences_of_large_targets_survive_a_float32_model():
    """float32 itself holds 20,240,131 as 20,240,132."""
    targets = [20_240_131.0, 20_240_132.0, 20_240_133.0]
    scale = measure_targets(targets)
    learnt = scale.standardise(targets).astype(np.float32)
    assert scale.restore(learnt) == pytest.approx(targets, abs=1e-6)
    assert scale.restore(learnt).dtype == np.float64


def test_every_bit_is_kept_in_the_file(tmp_path):
    scale = measure_targets([0.1, 0.7, 1e17 / 3])
    save_target_scale(scale, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TARGETS_FILE]
    assert load_target_scale(tmp_path) == scale
    assert list(json.loads((tmp_path / TARGETS_FILE).read_text())) == ["mean", "std"]


def test_a_folder_without_the_file_learnt_targets_as_they_are(tmp_path):
    assert load_target_scale(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "unreadable"),
        ("[1, 2]", "needs finite numbers, mean and std"),
        ('{"mean": 1.0}', "needs finite numbers, mean and std"),
        ('{"mean": NaN, "std": 1.0}', "needs finite numbers, mean and std"),
        ('{"mean": 1.0, "std": -1.0}', "std at least 0"),
        ('{"mean": "1", "std": 1}', "needs finite numbers, mean and std"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, words):
    (tmp_path / TARGETS_FILE).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        load_target_scale(tmp_path)
    assert str(tmp_path / TARGETS_FILE) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_target_is_refused():
    with pytest.raises(ValueError, match="there is no row to train on"):
        measure_targets([])
