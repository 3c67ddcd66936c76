"""A run read in a notebook: found by its name, with its configuration, scores and tables."""

import shutil

import pandas as pd
import pytest
from project import ROOT

import pipelines.competitions
from pipelines.errors import PodiumError
from pipelines.runs.run import Run

FORMER = ROOT / "tests" / "fixtures" / "former"
FINISHED, STOPPED = "20261129-014910-c3b3", "20261129-014919-8d12"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    shutil.copytree(FORMER, tmp_path / "checkout")
    place = tmp_path / "checkout" / "competitions"
    monkeypatch.setattr(pipelines.competitions, "__path__", [*pipelines.competitions.__path__, str(place)])
    return tmp_path / "checkout"


@pytest.fixture
def run(checkout):
    return Run.open("former_tiny_t5", checkout)


@pytest.mark.parametrize("name", ["former_tiny_t5", FINISHED, f"former_tiny_t5/{FINISHED}"])
@pytest.mark.parametrize("below", ["", "experiments"])
def test_it_is_found_by_its_experiment_or_its_id_from_anywhere_in_the_checkout(checkout, name, below):
    assert Run.open(name, checkout / below).path == checkout / "runs" / "former_tiny_t5" / FINISHED


def test_it_is_found_by_its_folder(checkout, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = checkout / "runs" / "former_tiny_t5" / STOPPED
    assert Run.open(str(folder)).path == folder
    assert Run.open(f"checkout/runs/former_tiny_t5/{STOPPED}").status == "interrupted"


def test_its_configuration_and_scores(run):
    assert (run.config.name, run.config.seed, run.config.optimizer.name) == ("former_tiny_t5", 1, "adafactor")
    assert {key.split("/")[0] for key in run.metrics} == {"fold0", "cv", "oof"}
    assert (run.experiment, run.competition, run.mode, run.status) == (
        "former_tiny_t5", "former_tiny", "real", "finished",
    )  # fmt: skip


def test_its_tables(run):
    folds = pd.read_csv(run.folds_file)
    oof, test, submission = run.oof(), run.test_predictions(), run.submission()
    assert len(oof) == (folds["fold"] == 0).sum()
    assert {"id", "prediction", "true_label", "fold"} <= set(oof.columns)
    assert test["id"].astype(str).tolist() == submission.iloc[:, 0].tolist()
    assert test["prediction"].tolist() == submission.iloc[:, 1].tolist()


@pytest.mark.parametrize("table", ["oof", "test_predictions", "submission"])
def test_a_table_that_was_changed_or_is_gone_is_named_with_a_cure(run, table):
    path = getattr(run, f"{table}_file")
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(PodiumError, match=rf"{path.name}: damaged or changed .*; .*make (resume|predict)"):
        getattr(run, table)()
    path.unlink()
    with pytest.raises(PodiumError, match=rf"{path.name}: no such file; `make (resume|predict) RUN={FINISHED}`"):
        getattr(run, table)()


def test_no_such_run(checkout):
    with pytest.raises(PodiumError, match=r"experiment former_tiny_t: no runs under .*; did you mean former_tiny_"):
        Run.open("former_tiny_t", checkout)


def test_a_record_edited_by_hand_is_one_line_that_names_file_and_field(run):
    text = run.record_file.read_text()
    run.record_file.write_text(text.replace('"seed": 1', '"seed": "one"'))
    with pytest.raises(PodiumError) as error:
        run.read_record()
    assert str(error.value).startswith(f"{run.record_file}: seed: 'one' is not a whole number; ")
    run.record_file.write_text(text.replace('"seed": 1', '"seed": 2'))
    with pytest.raises(PodiumError, match=r"run\.json: damaged or changed by hand"):
        run.read_record()


def test_entries_of_a_later_version_stay_when_the_record_is_changed(tmp_path):
    folder = tmp_path / "runs" / "first_try" / "20261121-100000-bbbb"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"run": "20261121-100000-bbbb", "experiment": "first_try", "colour": "red"}')
    run = Run(folder)
    run.update_record(seed=3)
    assert '"colour": "red"' in run.record_file.read_text()
    assert run.read_record().seed == 3
