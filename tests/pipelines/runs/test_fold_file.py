"""Folds are kept for equal inputs alone, and no file that was changed is taken for one that was not."""

import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_competition import install_competition, make_competition, write_lines

from pipelines.competitions.competition import FoldDefaults
from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.runs.fold_file import hash_folds, obtain_folds, read_folds, write_folds
from pipelines.workspace import Workspace

NUM_ROWS = 60
LINES = ("name: first_try", "competition: tiny_task", "model: {name: linear_baseline}", "data: {name: table}")
REGRESSION = {"task": "regression", "metric": "rmse", "extra_metrics": ()}


@pytest.fixture
def train():
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"r{row}" for row in range(NUM_ROWS)],
            "site": generator.choice(["a", "b", "c", "d", "e", "f"], NUM_ROWS),
            "patient": [f"p{row // 3}" for row in range(NUM_ROWS)],
            "day": [f"2024-01-{1 + row % 28:02d}" for row in range(NUM_ROWS)],
            "label": generator.integers(0, 2, NUM_ROWS),
        }
    )


@pytest.fixture
def folds_of(tmp_path, monkeypatch):
    """The folds of a training table, kept beside the data in `tmp_path / "data"`."""
    workspace = Workspace(tmp_path)
    write_lines(workspace.experiments / "first_try.yaml", *LINES)
    install_competition(monkeypatch, tmp_path / "competitions")

    def obtain(train, scheme, *, seed=0, fields=None, **defaults):
        competition = make_competition(folds=FoldDefaults("kfold", **defaults), **(fields or {}))
        overrides = [f"folds.name={scheme}", *([] if scheme == "time" else [f"folds.seed={seed}"])]
        experiment = load_experiment(workspace, "first_try", overrides)
        return obtain_folds(experiment, competition, train, tmp_path / "data")

    return obtain


def kept(tmp_path):
    return sorted((tmp_path / "data" / "folds").glob("*.csv"))


def num_split(folds, groups):
    """In how many groups there are rows of more than one fold."""
    return int((pd.Series(folds).groupby(groups.to_numpy()).nunique() > 1).sum())


@pytest.mark.parametrize("scheme", ["group", "stratified_group", "holdout"])
def test_another_column_of_groups_makes_other_folds(folds_of, train, scheme):
    assert num_split(folds_of(train, scheme, group_column="site"), train["site"]) == 0
    assert num_split(folds_of(train, scheme, group_column="patient"), train["patient"]) == 0


@pytest.mark.parametrize("scheme", ["group", "stratified_group", "holdout"])
def test_other_groups_in_the_same_column_make_other_folds(folds_of, train, scheme):
    folds_of(train, scheme, group_column="patient")
    changed = train.assign(patient=train["patient"].to_numpy()[::-1].copy()).assign(
        patient=[f"p{row % 20}" for row in range(NUM_ROWS)]
    )
    assert num_split(folds_of(changed, scheme, group_column="patient"), changed["patient"]) == 0


def test_other_labels_and_times_make_other_folds(folds_of, train):
    folds_of(train, "stratified")
    changed = train.assign(label=[int(row < 30) for row in range(NUM_ROWS)])
    assert np.bincount(folds_of(changed, "stratified")[:30]).tolist() == [6] * 5
    values = train.assign(label=np.arange(NUM_ROWS, dtype=float))
    folds_of(values, "stratified", fields=REGRESSION)
    upside = values.assign(label=values["label"].to_numpy()[np.random.default_rng(1).permutation(NUM_ROWS)])
    folds = folds_of(upside, "stratified", fields=REGRESSION)
    assert np.bincount(folds[upside["label"].to_numpy() < 30], minlength=5).tolist() == [6] * 5
    first = folds_of(train, "time", time_column="day")
    later = train.assign(day=train["day"].to_numpy()[::-1])
    assert folds_of(later, "time", time_column="day").tolist() == first[::-1].tolist()


def test_equal_inputs_read_the_kept_file(folds_of, train, tmp_path):
    """Columns that the scheme does not look at are none of its inputs."""
    first = folds_of(train, "kfold")
    (path,) = kept(tmp_path)
    content = path.read_bytes()
    again = folds_of(train.assign(label=0, site="z"), "kfold", group_column="site")
    assert again.tolist() == first.tolist()
    assert kept(tmp_path) == [path]
    assert path.read_bytes() == content
    folds_of(train, "kfold", seed=1)
    assert len(kept(tmp_path)) == 2
    assert content.decode().startswith(f"# folds_sha256 {hash_folds(train, first)}\nid,fold\nr0,{first[0]}\n")


def test_a_file_of_an_older_podium_is_not_taken_for_these_rows(folds_of, train, tmp_path):
    """Its name holds settings and ids alone, so that it may be of other groups."""
    expected = folds_of(train, "group", group_column="patient")
    shutil.rmtree(tmp_path / "data")
    name = f"group-num_folds=5-seed=0-{'0' * 12}.csv"
    write_folds(tmp_path / "data" / "folds" / name, train, np.zeros(NUM_ROWS, dtype=np.int64))
    assert folds_of(train, "group", group_column="patient").tolist() == expected.tolist()


def edit(text, row, cell):
    lines = text.split("\n")
    lines[row] = f"{lines[row].split(',')[0]},{cell}"
    return "\n".join(lines)


DAMAGES = {
    "another fold": (
        lambda text: edit(text, 5, (int(text.split("\n")[5][-1]) + 1) % 5),
        "changed since it was written",
    ),
    "a fold that is none": (lambda text: edit(text, 5, "-3"), r"id r3: '-3' is no fold"),
    "a fraction": (lambda text: edit(text, 5, "0.5"), r"id r3: '0\.5' is no fold"),
    "an empty cell": (lambda text: edit(text, 5, ""), r"id r3: '' is no fold"),
    "a word": (lambda text: edit(text, 5, "one"), r"id r3: 'one' is no fold"),
    "another id": (lambda text: text.replace("\nr7,", "\nr700,"), r"row 8 is id 'r700', and in train 'r7'"),
    "a row less": (lambda text: "\n".join(text.split("\n")[:-2]) + "\n", "it holds 59 rows, and train 60"),
    "no rows": (lambda text: "".join(text.partition("id,fold\n")[:2]), "it holds 0 rows, and train 60"),
    "nothing": (lambda text: "", "damaged"),
    "no header": (lambda text: text.replace("id,fold\n", ""), "damaged, its columns are not id and fold"),
    "a comma too many": (lambda text: edit(text, 5, "1,1"), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_kept_file_that_was_changed_is_refused_in_one_line(folds_of, train, tmp_path, name):
    change, message = DAMAGES[name]
    folds = folds_of(train, "kfold")
    (path,) = kept(tmp_path)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(PodiumError, match=message) as refusal:
        folds_of(train, "kfold")
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    path.unlink()
    assert folds_of(train, "kfold").tolist() == folds.tolist()


@pytest.mark.parametrize("name", DAMAGES)
def test_the_folds_of_a_run_are_held_against_its_record(train, tmp_path, name):
    change, message = DAMAGES[name]
    folds = np.arange(NUM_ROWS) % 5
    path = tmp_path / "folds.csv"
    write_folds(path, train, folds)
    sha256 = hash_folds(train, folds)
    assert path.read_text(encoding="utf-8").startswith("id,fold\nr0,0\nr1,1\n")
    assert read_folds(path, train, sha256=sha256).tolist() == read_folds(path, train).tolist() == folds.tolist()
    text = "# \n" + path.read_text(encoding="utf-8")  # lines counted as in a kept file
    path.write_text(change(text).removeprefix("# \n"), encoding="utf-8")
    with pytest.raises(PodiumError, match=message) as refusal:
        read_folds(path, train, sha256=sha256)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_the_folds_of_a_run_that_are_missing_are_named(train, tmp_path):
    with pytest.raises(PodiumError, match=r"folds\.csv: missing; restore the file, or start a new run"):
        read_folds(tmp_path / "folds.csv", train)
