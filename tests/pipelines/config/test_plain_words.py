"""Words and numbers of YAML 1.1 that say something else than what is written: refused in one line, or taken as text."""

import pytest
import yaml
from small_experiment import BASE

from pipelines.config.load import load_experiment
from pipelines.config.plain_words import keep_as_written
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace


def load(folder, *overrides, text=BASE):
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "base.yaml").write_text(text, encoding="utf-8")
    return load_experiment(Workspace(folder), "base", overrides, folds_of=lambda name: {"name": "stratified"})


REFUSED = [
    ("seed", "010", "'010' is text; needs a whole number, written 10"),
    ("seed", "-07", "'-07' is text; needs a whole number, written -7"),
    ("seed", "1_000", "'1_000' is text; needs a whole number, written 1000"),
    ("seed", "0x1_0", "'0x1_0' is text; needs a whole number, in decimal digits alone"),
    ("seed", "1:30", "'1:30' is text; needs a whole number, in decimal digits alone"),
    ("training.num_steps", "1:30:00", "'1:30:00' is text; needs a whole number or null, in decimal digits alone"),
    ("optimizer.lr", "0_1.5", "'0_1.5' is text; needs a number or null, written 1.5"),
    ("optimizer.lr", "1:30.5", "'1:30.5' is text; needs a number or null, in decimal digits alone"),
    ("optimizer.lr", "1_0e-3", "'1_0e-3' is text; needs a number or null, written 0.01"),
    ("optimizer.beta1", "010", "'010' is text; needs a number or null, written 10.0"),
    ("optimizer.scale_parameter", "yes", "'yes' is text; needs true or false, written true"),
    ("optimizer.scale_parameter", "On", "'On' is text; needs true or false, written true"),
    ("optimizer.scale_parameter", "no", "'no' is text; needs true or false, written false"),
    ("optimizer.scale_parameter", "OFF", "'OFF' is text; needs true or false, written false"),
]


@pytest.mark.parametrize(("key", "value", "problem"), REFUSED)
def test_a_surprise_is_refused_with_its_spelling(key, value, problem, tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, f"{key}={value}")
    assert str(refusal.value) == f"override: {key}: {problem}"


@pytest.mark.parametrize(("key", "value", "problem"), REFUSED)
def test_and_in_a_file(key, value, problem, tmp_path):
    values = yaml.safe_load(BASE)
    section, _, field = key.rpartition(".")
    (values[section] if section else values)[field] = "HERE"
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, text=yaml.safe_dump(values).replace("HERE", value))
    assert str(refusal.value) == f"experiments/base.yaml: {key}: {problem}"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.mixed_precision=no", "no"),
        ("training.mixed_precision=false", "no"),
        ("training.mixed_precision='no'", "no"),
        ("seed=10", 10),
        ("seed=0", 0),
        ("seed=+7", 7),
        ("seed=0x10", 16),
        ("optimizer.lr=5e-4", 5e-4),
        ("optimizer.lr=.5", 0.5),
        ("optimizer.lr=00.5", 0.5),
        ("optimizer.scale_parameter=false", False),
        ("optimizer.scale_parameter=True", True),
        ("optimizer.beta1=null", None),
        ("optimizer.beta1=~", None),
    ],
)
def test_what_has_one_meaning_is_taken(override, value, tmp_path):
    key = override.partition("=")[0]
    experiment = load(tmp_path, override)
    found = experiment.raw
    for part in key.split("."):
        found = found[part]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: no\nb: [010, yes, 1_0]\n", {"a": "no", "b": ["010", "yes", "1_0"]}),
        ("on: 1:30 # a time\n", {"on": "1:30"}),
        ("a: 'on'\nb: \"010\"\nc: |\n  no\n", {"a": "on", "b": "010", "c": "no\n"}),
        ("\ufeffa: off\n", {"a": "off"}),
        ("é: 'ü' # ö\nb: {x: 0_7, y: no }", {"é": "ü", "b": {"x": "0_7", "y": "no"}}),
        ("a: run_010 no\nb: a:010\nc: 2020-01-01\n", {"a": "run_010 no", "b": "a:010"}),
        ("a: t5_v1_1\nb: 12_a.csv\n", {"a": "t5_v1_1", "b": "12_a.csv"}),
    ],
)
def test_text_stays_the_text_that_was_written(text, values):
    loaded = yaml.safe_load(keep_as_written(text))
    assert {key: loaded[key] for key in values} == values
    assert keep_as_written(text).count("\n") == text.count("\n")


def test_the_line_of_a_mistake_is_that_of_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"experiments/base\.yaml: line 9: .*tabs"):
        load(tmp_path, text=f"{BASE}seed: 010\n\tfold: 1\n")


@pytest.mark.parametrize(
    ("seed", "problem"),
    [
        ("4294967296", "4294967296 is too large; needs 4294967295 or less"),
        ("18446744073709551616", "18446744073709551616 is too large; needs 4294967295 or less"),
        ("-1", "-1 is too small; needs 0 or more"),
    ],
)
def test_a_seed_that_numpy_refuses_is_refused_before_training(seed, problem, tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, f"seed={seed}")
    assert str(refusal.value) == f"override: seed: {problem}"


def test_the_largest_seed_is_taken(tmp_path):
    assert load(tmp_path, "seed=4294967295").seed == 2**32 - 1
