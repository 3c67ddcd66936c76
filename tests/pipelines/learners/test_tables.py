"""The table baseline in whole runs: what test may hold, what a fold may lack, and no paths of images."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from small_runs import strip_digests
from tiny_competition import install_competition, write_lines

from components.tables.model import TabularBaseline, load_tabular_baseline
from pipelines.competitions.competition import ImagePlaces
from pipelines.competitions.loading import load_competition
from pipelines.errors import ConfigError, PodiumError
from pipelines.training import prediction
from pipelines.training.train import train
from pipelines.workspace import Workspace

LINES = ("name: first_try", "competition: tiny_task", "model: {name: linear_baseline}", "data: {name: table}")
QUICK = ("tracking.name=none", "folds.name=kfold", "folds.num_folds=3")
NUM_ROWS, NUM_TEST = 60, 10


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    for name in ("SMOKE", "OVERFIT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    write_lines(tmp_path / "experiments" / "first_try.yaml", *LINES)
    return Workspace(tmp_path)


@pytest.fixture
def trained(workspace, monkeypatch):
    """Trains on a table of x, whose sign is the label, with other columns beside it; returns the run."""

    def run(odd=None, odd_in_test=None, **fields):
        x = np.random.default_rng(0).normal(size=NUM_ROWS + NUM_TEST)
        table = pd.DataFrame({"id": np.arange(len(x)), "x": [f"{value:.3f}" for value in x]})
        inputs = ("x",) if odd is None else ("x", "odd")
        if odd is not None:
            table["odd"] = [*np.resize(np.array(odd, dtype=object), NUM_ROWS), *np.resize(odd_in_test, NUM_TEST)]
        folder = workspace.data_dir("tiny-task")
        folder.mkdir(parents=True, exist_ok=True)
        table.assign(label=(x > 0).astype(int))[:NUM_ROWS].to_csv(folder / "train.csv", index=False)
        table[NUM_ROWS:].to_csv(folder / "test.csv", index=False)
        table[NUM_ROWS:][["id"]].assign(label=0.5).to_csv(folder / "sample_submission.csv", index=False)
        fields = {"input_columns": inputs, "extra_metrics": ()} | fields
        install_competition(monkeypatch, workspace.root / "competitions", **fields)
        return train(workspace, "first_try", QUICK)

    return run


def refused(workspace, run, *arguments, **fields):
    with pytest.raises(PodiumError) as refusal:
        run(*arguments, **fields)
    assert not list(workspace.runs.glob("*/*/run.json"))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("odd", "odd_in_test", "said"),
    [
        (["1234", "7"], ["5", "1,234", "2,000"], "id 61: '1,234' is no number (6 such rows)"),
        (["1234", ""], ["12%"], "id 60: '12%' is no number (10 such rows)"),
        (["1234", "7"], ["?", *["5"] * 9], "id 60: '?' is no number, "),
        (["2024-01-31"], ["2024-01-01", "31/01/2024"], "id 61: '31/01/2024' is no date such as 2024-01-31 (5 such "),
    ],
)
def test_test_cells_that_are_no_numbers_or_dates_are_refused_before_training(
    workspace, trained, odd, odd_in_test, said
):
    message = refused(workspace, trained, odd, odd_in_test)
    assert message.startswith(f"tiny_task: test, column odd, {said}")
    assert "take odd out of input_columns" in message


@pytest.mark.parametrize(
    ("odd", "odd_in_test"),
    [
        (["1234", "7"], ["NA", "", "null", "n/a", "5"]),  # missing
        (["low", "high", "5"], ["1", "2"]),  # the other way round
        (["2024-01-31", "NA"], ["2024/2/1", ""]),
    ],
)
def test_what_is_missing_or_was_text_before_is_no_fault(trained, odd, odd_in_test):
    run = trained(odd, odd_in_test)
    assert run.read_record().status == "finished"
    assert run.read_metrics()["oof/auc"] > 0.9


def test_a_column_that_only_a_fold_takes_for_numbers_is_text_there_too(trained):
    """One cell of sixty is a word: the fold that holds it back would read it as a missing number."""
    run = trained([*map(str, range(NUM_ROWS - 1)), "unknown"], ["3"])
    kinds = [load_tabular_baseline(path).kinds.by_column for path in run.trained_checkpoints()]
    assert kinds == [{"x": "numbers", "odd": "texts"}] * 3
    assert run.read_record().column_kinds["texts"] == ("odd",)


@pytest.mark.parametrize(
    ("odd", "estimator"),
    [(["5", *[""] * 59], "boosting"), (["2024-01-31", *[""] * 59], "boosting"), (["a word", *[""] * 59], "linear")],
)
def test_a_column_of_few_values_trains_where_a_fold_has_none(workspace, trained, odd, estimator):
    line = LINES[2].replace("}", f", estimator: {estimator}}}")
    write_lines(workspace.experiments / "first_try.yaml", *LINES[:2], line, LINES[3])
    assert trained(odd, [""]).read_metrics()["oof/auc"] > 0.9


def test_a_table_of_nothing_is_refused(workspace, trained):
    message = refused(workspace, trained, [""], [""], input_columns=("odd",))
    assert message == "tiny_task: no cell of odd holds a value in train"


def test_codes_that_differ_in_test_alone_are_kept_apart(trained):
    run = trained(["007", "012"], ["7"])
    assert run.read_record().column_kinds["categories"] == ("odd",)


def test_hidden_rows_may_hold_anything_and_are_answered_for_with_a_warning(workspace, trained, tmp_path):
    run = trained(["1234", "7"], ["5"])
    data = tmp_path / "hidden"
    shutil.copytree(workspace.data_dir("tiny-task"), data)
    text = (data / "test.csv").read_text(encoding="utf-8")
    outputs = []
    for cell in ("", "1;234"):
        (data / "test.csv").write_text(re.sub(r",5$", f",{cell}", text, count=3, flags=re.M), encoding="utf-8")
        with pytest.warns(UserWarning, match=r"column odd, id 60: '1;234' is no number \(3 such") if cell else quiet():
            prediction.main(run.path, data, tmp_path / "out" / "submission.csv")
        outputs.append((tmp_path / "out" / "submission.csv").read_bytes())
    assert outputs[0] == outputs[1]


def quiet():
    from contextlib import nullcontext

    return nullcontext()


def test_the_paths_of_images_are_no_words(workspace, trained):
    """The answers of a table with images are those of the table alone, wherever the checkout lies."""
    places = ImagePlaces("odd", "train_images/{}.png", "test_images/{}.png")
    paths = [f"{row:03d}" for row in range(NUM_ROWS)]
    run = trained(paths, ["900"], images=places)
    alone = trained(paths, ["900"], input_columns=("x",))
    assert run.submission_file.read_bytes() == alone.submission_file.read_bytes()
    assert run.read_record().column_kinds == alone.read_record().column_kinds
    shutil.rmtree(workspace.runs)
    with pytest.raises(ConfigError, match="tiny_task has nothing but images; pixel_baseline and xcit read these"):
        trained(paths, ["900"], input_columns=("odd",), images=places)
    assert not list(workspace.runs.glob("*/*/run.json"))


def test_a_run_of_an_older_podium_still_predicts(workspace, trained, tmp_path):
    """Its record has no kinds, and its baselines were fitted on the paths of images."""
    places = ImagePlaces("odd", "train_images/{}.png", "test_images/{}.png")
    run = trained([f"{row:03d}" for row in range(NUM_ROWS)], ["900"], images=places)
    strip_digests(run.path, "column_kinds")
    rows = load_competition("tiny_task").load_train(workspace.data_dir("tiny-task"))
    for path in run.trained_checkpoints():
        TabularBaseline(task="binary").fit(rows[["x", "odd"]], rows["label"]).save(path)
    prediction.main(run.path, workspace.data_dir("tiny-task"), tmp_path / "submission.csv")
    assert pd.read_csv(tmp_path / "submission.csv")["label"].between(0, 1).all()
