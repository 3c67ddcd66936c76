"""What the version before the rooms left behind is read as it was: runs, resume points, folds, a competition's file.

`tests/fixtures/former` is a workspace of commit bbd6502: a competition that `podium new` wrote beside podium's own
modules, two finished runs, and one that was stopped after 24 of 40 steps.
"""

import shutil

import pandas as pd
import pytest
from project import ROOT

import pipelines.competitions
from components.training.loop import TrainingLoop
from pipelines.cli import main
from pipelines.competitions.loading import competition_file, load_competition
from pipelines.config.load import load_experiment
from pipelines.runs.fold_file import obtain_folds
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

FORMER = ROOT / "tests" / "fixtures" / "former"
FINISHED = {"20261129-014907-76ce", "20261129-014910-c3b3"}
STOPPED = "20261129-014919-8d12"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    shutil.copytree(FORMER, tmp_path / "checkout")
    place = tmp_path / "checkout" / "competitions"
    monkeypatch.setattr(pipelines.competitions, "__path__", [*pipelines.competitions.__path__, str(place)])
    return Workspace(tmp_path / "checkout")


def test_a_competition_beside_podiums_own_modules_is_found_and_imported_from_where_it_lies(workspace):
    competition = load_competition("former_tiny")
    assert competition.class_names == ("fruit", "metal", "river")
    assert competition_file("former_tiny") == workspace.root / "competitions" / "former_tiny.py"
    assert competition_file("of_my_own").parent.name == "catalogue"


def test_its_folds_are_kept(workspace):
    (file,) = workspace.data.glob("former-tiny/folds/*.csv")
    before = file.read_bytes()
    experiment = load_experiment(workspace, "former_tiny_baseline")
    competition = load_competition("former_tiny")
    train = competition.load_train(workspace.data_dir("former-tiny"))
    folds = obtain_folds(experiment, competition, train, workspace.data_dir("former-tiny"))
    assert folds.tolist() == pd.read_csv(FORMER / "runs/former_tiny_t5" / STOPPED / "folds.csv")["fold"].tolist()
    assert [path.read_bytes() for path in workspace.data.glob("former-tiny/folds/*")] == [before]


def test_its_finished_runs_predict_the_same_bytes(workspace, tmp_path):
    records = [record for record in Run.list(workspace.runs) if record.status == "finished"]
    assert {record.id for record in records} == FINISHED
    for record in records:
        again = tmp_path / record.id / "submission.csv"
        main(["--root", str(workspace.root), "predict", "--run", record.id, "--output", str(again)])
        assert again.read_bytes() == (record.path / "submission.csv").read_bytes()


def test_its_stopped_run_goes_on_from_its_resume_point_to_where_the_other_one_ended(workspace, monkeypatch):
    steps = []
    step = TrainingLoop._step
    monkeypatch.setattr(TrainingLoop, "_step", lambda loop, window: steps.append(step(loop, window)))
    main(["--root", str(workspace.root), "resume", "--run", STOPPED])
    stopped, whole = (workspace.runs / "former_tiny_t5" / run for run in (STOPPED, max(FINISHED)))
    assert len(steps) == 16
    for name in ("submission.csv", "metrics.json", "fold0/history.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
