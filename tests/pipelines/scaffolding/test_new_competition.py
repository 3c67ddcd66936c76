"""`podium new` on synthetic Kaggle-shaped files: the contract is inferred, and what is written imports and is clean."""

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from project import ROOT
from rich.console import Console

import pipelines.competitions
from components.tables.model import TabularBaseline
from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import competition_names, load_competition
from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.runs.scoring import frame_probabilities, frame_texts, is_greater_better, score_predictions
from pipelines.scaffolding.new import competition_name, new_competition
from pipelines.scaffolding.sniffing import CompetitionDraft, sniff_competition
from pipelines.workspace import Workspace

NUM_TRAIN, NUM_TEST = 120, 30
SLUG = "house-of-tests"
Tables = dict[str, pd.DataFrame]


def inputs() -> pd.DataFrame:
    generator = np.random.default_rng(1)
    num_rows = NUM_TRAIN + NUM_TEST
    return pd.DataFrame(
        {
            "id": np.arange(100, 100 + num_rows),
            "size": generator.normal(size=num_rows).round(4),
            "city": generator.choice(["Kyiv", "Pune", "NA"], num_rows),
            "note": [" ".join(generator.choice(["old", "new", "red", "dry"], 4)) + f" {i}" for i in range(num_rows)],
        }
    )


def split(table: pd.DataFrame, labels: dict[str, object], sample: dict[str, object]) -> Tables:
    test = table[NUM_TRAIN:]
    return {
        "train": table.assign(**labels)[:NUM_TRAIN],
        "test": test,
        "sample_submission": pd.DataFrame({"id": test["id"], **sample}),
    }


def regression() -> Tables:
    table = inputs()
    price = (table["size"] * 2.5 + (table["city"] == "Pune") * 3 + 7).round(3)
    return split(table, {"price": price}, {"price": 0.0})


def binary() -> Tables:
    table = inputs().drop(columns="note")
    return split(table, {"sold": (table["size"] > 0.2).astype(int)}, {"sold": 0})


def multilabel() -> Tables:
    table = inputs()
    labels = {"large": (table["size"] > 0).astype(int), "red": table["note"].str.contains("red").astype(int)}
    return split(table, labels, {"large": 0.5, "red": 0.5})


def multiclass() -> Tables:
    table = inputs().rename(columns={"size": "petal"})
    species = np.array(["setosa", "virginica", "versicolor"])[np.digitize(table["petal"], [-0.5, 0.5])]
    return split(table, {"species": species}, dict.fromkeys(["setosa", "versicolor", "virginica"], 1 / 3))


def text_to_text() -> Tables:
    table = inputs()[["id", "note"]]
    return split(table, {"answer": table["note"].str.upper()}, {"answer": ""})


MAKERS = {maker.__name__: maker for maker in (regression, binary, multilabel, multiclass, text_to_text)}


def write(folder: Path, tables: Tables) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "experiments").mkdir()
    return Workspace(tmp_path)


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def load_generated(path: Path) -> Competition:
    spec = importlib.util.spec_from_file_location(f"generated_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.COMPETITION


@pytest.mark.parametrize(
    ("task", "columns", "labels", "metric", "folds"),
    [
        ("regression", ("size", "city", "note"), ("price",), "rmse", "stratified"),
        ("binary", ("size", "city"), ("sold",), "accuracy", "stratified"),
        ("multilabel", ("size", "city", "note"), ("large", "red"), "auc", "stratified"),
        ("multiclass", ("petal", "city", "note"), ("species",), "log_loss", "stratified"),
        ("text_to_text", ("note",), ("answer",), "exact_match", "kfold"),
    ],
)
def test_the_contract_is_read_off_the_files(tmp_path, task, columns, labels, metric, folds):
    draft = sniff_competition(write(tmp_path, MAKERS[task]()), SLUG)
    assert (draft.task, draft.id_column, draft.metric, draft.folds) == (task, "id", metric, folds)
    assert (draft.input_columns, draft.label_columns) == (columns, labels)
    assert draft.class_names == (("setosa", "versicolor", "virginica") if task == "multiclass" else ())
    assert list(draft.reasons) == ["id_column", "input_columns", "label_columns", "task", "metric", "folds"]
    assert draft.hints == ()


def sniff_label(folder: Path, values: object, sample: object = 0, **given: str) -> CompetitionDraft:
    return sniff_competition(write(folder, split(inputs(), {"label": values}, {"label": sample})), SLUG, **given)


@pytest.mark.parametrize(
    ("values", "sample", "task", "metric"),
    [
        (["yes", "no"] * 75, "no", "multiclass", "accuracy"),
        ([0, 1] * 75, 0.5, "binary", "auc"),
        ([0, 1, 2] * 50, 1, "multiclass", "accuracy"),
        ([0, 1, 2] * 50, 1.2, "regression", "rmse"),
        (list(range(1000, 1150)), 0, "regression", "rmse"),
        (list(range(0, 75, 3)) * 6, 0, "regression", "rmse"),
    ],
)
def test_one_label_column_tells_its_task(tmp_path, values, sample, task, metric):
    draft = sniff_label(tmp_path, values, sample)
    assert (draft.task, draft.metric) == (task, metric)


def test_numbered_classes_are_listed_as_numbers_are_sorted(tmp_path):
    assert sniff_label(tmp_path, [10, 9, 2] * 50).class_names == ("2", "9", "10")


def test_a_class_rarer_than_the_folds_is_not_stratified(tmp_path):
    draft = sniff_label(tmp_path, ["rare", *["common", "usual"] * 75][:150], "usual")
    assert draft.folds == "kfold"
    assert draft.reasons["folds"] == "class rare has fewer rows (1) than there are folds (5)"


def test_what_is_given_is_not_guessed(tmp_path):
    draft = sniff_label(tmp_path, [1, 2, 3] * 50, task="regression", metric="mae", id_column="id", label="label")
    assert (draft.task, draft.metric, draft.reasons["task"]) == ("regression", "mae", "as given by --task")


def test_a_shared_key_is_pointed_out_and_not_chosen(tmp_path):
    table = inputs().assign(patient_id=[f"p{index // 3}" for index in range(NUM_TRAIN + NUM_TEST)])
    draft = sniff_competition(write(tmp_path, split(table, {"ill": [0, 1] * 75}, {"ill": 0})), SLUG)
    assert draft.folds == "stratified"
    assert draft.hints == (
        "patient_id has 40 values in 120 rows, and 0% of the test rows have one that train knows: "
        'where test brings new ones, folds "group" with group_column="patient_id" tell the truth',
    )


def test_kaggles_other_names_and_archives_are_read(tmp_path):
    tables = binary()
    tables["train"].to_csv(tmp_path / "train.csv.gz", index=False)
    tables["sample_submission"].to_csv(tmp_path / "sampleSubmission.csv", index=False)
    with zipfile.ZipFile(tmp_path / "test.csv.zip", "w") as archive:
        archive.writestr("test.csv", tables["test"].to_csv(index=False))
    assert sniff_competition(tmp_path, SLUG).task == "binary"


def without(column: str, *roles: str) -> Tables:
    tables = binary()
    return {role: table.drop(columns=column) if role in roles else table for role, table in tables.items()}


def with_first_id(role: str, value: int) -> Tables:
    tables = binary()
    tables[role] = tables[role].assign(id=[value, *tables[role]["id"][1:]])
    return tables


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (lambda: without("id", "test"), "no column of the sample submission stands in test.*--id COLUMN"),
        (lambda: without("id", "train"), "train.csv has no column 'id' to be the id.*train.csv: size, city, sold;"),
        (
            lambda: without("sold", "train"),
            "asks for 'sold', which is neither.*name the label in train.csv .id, size, city. with --label",
        ),
        (lambda: without("sold", "sample_submission"), "nothing but ids.*--label COLUMN"),
        (lambda: with_first_id("train", 101), "train.csv: id '101' stands in lines 2 and 3; an id must be unique"),
        (lambda: with_first_id("sample_submission", 7), r"id '7' is not in test.csv \(1 such ids\)"),
        (lambda: {**binary(), "train": binary()["train"].assign(sold="")}, r"line 2 has no sold \(120 such rows\)"),
        (lambda: {**binary(), "train": binary()["train"][:0]}, "train.csv: no rows under the header"),
        (lambda: {name: table for name, table in binary().items() if name != "test"}, "no test.csv there, only"),
    ],
)
def test_what_the_files_do_not_say_is_asked_for(tmp_path, tables, message):
    with pytest.raises(PodiumError, match=message):
        sniff_competition(write(tmp_path, tables()), SLUG)


def test_several_label_columns_are_multilabel_or_nothing(tmp_path):
    tables = multilabel()
    with pytest.raises(PodiumError, match="regression has one label column, not 2"):
        sniff_competition(write(tmp_path, tables), SLUG, task="regression")
    tables["train"] = tables["train"].assign(red=0.25)
    with pytest.raises(PodiumError, match="the labels large, red are not all 0 or 1"):
        sniff_competition(write(tmp_path, tables), SLUG)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "ranking"}, "--task ranking: unknown; known tasks: binary, multiclass"),
        ({"task": "binary"}, "label of a binary task holds '2', not 0 or 1"),
        ({"metric": "gini"}, "--metric gini: unknown; known metrics: accuracy, auc"),
        ({"metric": "rmse"}, "--metric rmse: does not score a multiclass task; accuracy"),
        ({"label": "city"}, "the sample submission asks for 'label', which is neither"),
        ({"label": "lable"}, "train has no column 'lable' beside its id"),
        ({"id_column": "city"}, "sample_submission.csv has no column 'city' to be the id"),
    ],
)
def test_wrong_flags_are_refused(tmp_path, given, message):
    with pytest.raises(PodiumError, match=message):
        sniff_label(tmp_path, [0, 1, 2] * 50, **given)


def test_successive_numbers_may_be_classes_or_counts(tmp_path):
    with pytest.raises(PodiumError, match=r"holds 30 successive numbers.*--task multiclass or regression"):
        sniff_label(tmp_path, list(range(30)) * 5)
    assert sniff_label(tmp_path, list(range(30)) * 5, task="multiclass").class_names[-1] == "29"


def test_a_column_that_stands_twice_is_refused(tmp_path):
    write(tmp_path, binary())
    text = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text(text.replace("id,size,city", "id,size,size", 1))
    with pytest.raises(PodiumError, match="column 'size' stands twice in the first line"):
        sniff_competition(tmp_path, SLUG)


@pytest.mark.parametrize("task", list(MAKERS))
def test_the_baseline_of_the_written_files_beats_a_constant(workspace, quiet, tmp_path, task):
    data_dir = write(workspace.data_dir(SLUG), MAKERS[task]())
    metric = "chrf" if task == "text_to_text" else None
    module, _ = new_competition(workspace, SLUG, metric=metric, competitions_dir=tmp_path / "made", console=quiet)
    competition = load_generated(module)
    assert (competition.name, competition.task, competition.host) == ("house_of_tests", task, "kaggle")
    train, test = competition.load_train(data_dir), competition.load_test(data_dir)
    columns = list(competition.input_columns)
    baseline = TabularBaseline(task=task, num_classes=len(competition.class_names) or None)
    baseline.fit(train[:90][columns], targets(competition, train[:90]))
    held_out = train[90:]
    ours = score(competition, held_out, baseline.predict(held_out[columns]))
    constant = score(competition, held_out, constants(competition, train[:90], len(held_out)))
    assert ours > constant if is_greater_better(competition) else ours < constant

    sample = competition.load_sample(data_dir)
    submission = competition.to_submission(framed(competition, test, baseline.predict(test[columns])), sample)
    assert list(submission.columns) == list(sample.columns)
    assert list(submission["id"]) == list(sample["id"])
    assert submission.notna().all(axis=None)


def targets(competition: Competition, frame: pd.DataFrame) -> object:
    if competition.task == "multilabel":
        return frame[list(competition.label_columns)].to_numpy()
    if competition.task == "multiclass":
        return np.array([competition.class_names.index(name) for name in frame["label"]])
    return frame["label"].to_numpy()


def constants(competition: Competition, frame: pd.DataFrame, num_rows: int) -> object:
    """The mean label, the shares of the classes, or the first text."""
    known = targets(competition, frame)
    if competition.task == "text_to_text":
        return [known[0]] * num_rows
    if competition.task == "multiclass":
        known = np.eye(len(competition.class_names))[known]
    return np.repeat(known.mean(axis=0, keepdims=True), num_rows, axis=0)


def framed(competition: Competition, frame: pd.DataFrame, predictions: object) -> pd.DataFrame:
    if competition.task == "text_to_text":
        return frame_texts(frame, predictions, [0.0] * len(frame))
    return frame_probabilities(competition, frame, predictions)


def score(competition: Competition, frame: pd.DataFrame, predictions: object) -> float:
    return score_predictions(competition, frame, framed(competition, frame, predictions))[competition.metric]


def test_the_files_written_are_formatted_and_typed(workspace, quiet, tmp_path):
    made = tmp_path / "made"
    for task, maker in MAKERS.items():
        tables = maker()
        wide = {f"measured column number {index} of a wide table": 1.5 for index in range(9)}
        slug = f"trees-{task.replace('_', '-')}"
        write(
            workspace.data_dir(slug),
            {
                role: table
                if role == "sample_submission"
                else table.assign(**wide, **{'a "quoted" name': 1, "it's": 2})
                for role, table in tables.items()
            },
        )
        new_competition(workspace, slug, competitions_dir=made, console=quiet)
    config = ROOT / "pyproject.toml"
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", config, made],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    assert len(list(made.glob("*.py"))) == 5


def test_decisions_and_next_commands_are_printed(workspace, tmp_path):
    write(workspace.data_dir(SLUG), binary())
    screen = io.StringIO()
    new_competition(workspace, SLUG, competitions_dir=tmp_path / "made", console=Console(file=screen, width=60))
    lines = screen.getvalue().splitlines()
    assert lines[0].startswith("id_column      id: the first column of the sample submission")
    assert "task           binary: sold is 0 or 1" in lines
    assert lines[-1].strip() == "make submit EXP=house_of_tests_baseline"


def test_nothing_is_overwritten_without_force(workspace, quiet, tmp_path):
    write(workspace.data_dir(SLUG), binary())
    made = tmp_path / "made"
    experiment = workspace.experiments / "house_of_tests_baseline.yaml"
    experiment.write_text("mine")
    with pytest.raises(PodiumError, match=r"house_of_tests_baseline\.yaml: exists; --force"):
        new_competition(workspace, SLUG, competitions_dir=made, console=quiet)
    assert not made.exists()
    assert experiment.read_text() == "mine"
    new_competition(workspace, SLUG, competitions_dir=made, console=quiet, force=True)
    assert "competition: house_of_tests\n" in experiment.read_text()


def test_missing_data_name_the_command(workspace, tmp_path):
    with pytest.raises(PodiumError, match="run `podium data download house-of-tests`"):
        new_competition(workspace, SLUG, competitions_dir=tmp_path / "made")


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("spaceship-titanic", "spaceship_titanic"),
        ("2024-trees", "kaggle_2024_trees"),
        ("import", "kaggle_import"),
        ("llm", "llm"),
    ],
)
def test_slugs_become_module_names(slug, name):
    assert competition_name(slug) == name


@pytest.mark.parametrize("slug", ["../etc", "Big", "a--b", "user/trees", ""])
def test_other_words_are_no_slugs(slug):
    with pytest.raises(PodiumError, match="not a Kaggle slug"):
        competition_name(slug)


def test_both_files_are_found_by_their_names(workspace, quiet, tmp_path, monkeypatch):
    slug = "found-by-name"
    write(workspace.data_dir(slug), regression())
    made = tmp_path / "made"
    new_competition(workspace, slug, competitions_dir=made, console=quiet)
    monkeypatch.setattr(pipelines.competitions, "__path__", [*pipelines.competitions.__path__, str(made)])
    assert "found_by_name" in competition_names()
    assert load_competition("found_by_name").title == "Found by name"
    experiment = load_experiment(workspace, "found_by_name_baseline")
    assert (experiment.model.name, experiment.data.name) == ("linear_baseline", "table")
    assert (experiment.folds.name, experiment.folds.num_folds) == ("stratified", 5)
