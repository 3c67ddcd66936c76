"""A smoke run and an overfit run of an experiment that has a real one: nobody takes them for it."""

import json
import shutil

import pytest
from bert_references import save_small_bert
from mlflow.tracking import MlflowClient
from tiny_competition import write_lines

from components.files.digests import sealed
from pipelines.cli import main
from pipelines.errors import PodiumError
from pipelines.runs.run import Run
from pipelines.submissions.ledger import Ledger
from pipelines.tracking.mlflow.view import SCORES_VIEW_TAG
from pipelines.training import prediction

SMALL = """\
competition: bbc_pairs
model: {name: bert, checkpoint: "CHECKPOINT"}
data: {name: segments, first_column: headline, second_column: lead, max_length: 16, max_train_rows: 64}
optimizer: {name: adamw, lr: 1e-3}
schedule: {name: constant}
folds: {name: stratified, num_folds: 2}
training: {num_steps: 8, batch_size: 16, log_every_steps: 4, num_threads: 1}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_bert(tmp_path_factory.mktemp("small_bert"))


@pytest.fixture
def workspace(workspace, checkpoint, monkeypatch):
    """Two experiments, the second of which begins with the first one's weights, and a kernel of the first."""
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    monkeypatch.setattr("pipelines.config.modes.OVERFIT_STEPS", 24)
    for name, start in (("first", checkpoint), ("second", "run:first")):
        text = f"name: {name}\n" + SMALL.replace("CHECKPOINT", str(start))
        (workspace.experiments / f"{name}.yaml").write_text(text)
    write_lines(workspace.kernels / "pair" / "kernel.yaml", "title: Pair", "mode: predict", "experiment: first")
    write_lines(workspace.kernels / "pair" / "notebook.md", "A pair.")
    return workspace


@pytest.fixture
def podium(workspace, capfd):
    """The command line, and what it prints, on the screen and beside it."""

    def run(*arguments):
        main(["--root", str(workspace.root), *map(str, arguments)])
        return "".join(capfd.readouterr())

    return run


@pytest.fixture
def refused(podium, capfd):
    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            podium(*arguments)
        assert stopped.value.code == 2
        return capfd.readouterr().err.strip().splitlines()[-1].removeprefix("podium: ")

    return run


def train(podium, monkeypatch, mode=None, *overrides):
    for name in ("SMOKE", "OVERFIT"):
        monkeypatch.setenv(name, "1" if name == (mode or "").upper() else "0")
    said = podium("train", "first", *overrides)
    monkeypatch.setenv("SMOKE", "0")
    monkeypatch.setenv("OVERFIT", "0")
    return said


def runs_by_mode(workspace):
    return {record.mode: record for record in Run.list(workspace.runs, "first")}


def test_a_real_run_stays_what_its_experiment_means(workspace, podium, refused, monkeypatch):
    assert "next   make submit EXP=first" in train(podium, monkeypatch)
    for mode, words in (("smoke", "a smoke run: a few steps"), ("overfit", "an overfit run: one batch")):
        said = train(podium, monkeypatch, mode)
        assert f"This was {words}" in said
        assert "next   make experiment EXP=first    for a real run" in said
        assert "make submit" not in said
    runs = runs_by_mode(workspace)
    assert set(runs) == {"real", "smoke", "overfit"}
    real, smoke, overfit = (runs[mode].id for mode in ("real", "smoke", "overfit"))

    assert f"run {runs['real'].path}" in podium("predict", "first")
    said = podium("submit", "first")
    assert f"first: its newest finished run is {real}" in said
    assert "smoke run" not in said
    (entry,) = Ledger(workspace.ledger).records()
    assert (entry.run, entry.mode) == (real, None)
    assert f"run     {runs['real'].path}\nkernel" in podium("kernel", "build", "pair")
    podium("train", "second", "tracking.name=none")
    (second,) = Run.list(workspace.runs, "second")
    assert second.record.init_from.run == real
    assert second.record.init_from.mode is None

    rows = json.loads(podium("compare", "first", "--json"))
    assert rows[0]["run"] == real
    assert {row["mode"] for row in rows[1:]} == {"smoke", "overfit"}
    tracked_apart(runs, {mode: runs[mode].metrics["cv/auc"] for mode in runs})
    by_id(workspace, podium, refused, smoke, overfit)


def tracked_apart(runs, scores):
    """Name and tag tell the mode, and only the real run has a value under cv/, oof/ and lb/."""
    tracking = {mode: record.record.tracking for mode, record in runs.items()}
    client = MlflowClient(tracking["real"].uri)
    found = {mode: client.get_run(entry.run_id) for mode, entry in tracking.items()}
    assert {mode: run.data.tags["mode"] for mode, run in found.items()} == {mode: mode for mode in found}
    assert {mode: run.info.run_name for mode, run in found.items()} == {
        mode: f"{'' if mode == 'real' else f'{mode} '}first {runs[mode].id}" for mode in found
    }
    assert found["real"].data.metrics["cv/auc"] == scores["real"]
    for mode in ("smoke", "overfit"):
        metrics = found[mode].data.metrics
        assert metrics[f"{mode}/cv/auc"] == scores[mode]
        assert metrics[f"{mode}/oof/auc"] == runs[mode].metrics["oof/auc"]
        assert not [key for key in metrics if key.startswith(("cv/", "oof/", "lb/"))]
        assert "train/loss/fold1" in metrics, "curves lie over those of a real run"
    experiment = found["real"].info.experiment_id
    view = json.loads(client.get_experiment(experiment).tags[SCORES_VIEW_TAG])["selectedColumns"]
    assert "metrics.`cv/auc`" in view
    assert not [column for column in view if "smoke" in column or "overfit" in column]
    best = client.search_runs([experiment], order_by=["metrics.`cv/auc` DESC"], max_results=1)
    assert best[0].info.run_id == found["real"].info.run_id
    for mode, run in found.items():
        folds = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        prefix = "" if mode == "real" else f"{mode} "
        assert {fold.info.run_name for fold in folds} == {f"{prefix}fold0", f"{prefix}fold1"}
        assert {fold.data.tags["mode"] for fold in folds} == {mode}
        assert all(("auc" in fold.data.metrics) == (mode == "real") for fold in folds)


def by_id(workspace, podium, refused, smoke, overfit):
    """Named by its id a trial is taken, and called what it is."""
    assert f"{smoke} is a smoke run" in podium("predict", "--run", smoke)
    assert f"{overfit} is an overfit run" in podium("predict", "--run", overfit)
    said = podium("submit", "--run", smoke)
    assert f"run {smoke} is a smoke run" in said
    assert "ref 2, a smoke run; lb/public" in said
    record = Ledger(workspace.ledger).find("local:bbc_pairs:2")
    assert (record.mode, record.description) == ("smoke", f"first {smoke} (a smoke run)")
    modes = {line.split()[0]: line.split()[5] for line in podium("ledger").splitlines()[1:]}
    assert modes == {"local:bbc_pairs:1": "real", "local:bbc_pairs:2": "smoke"}
    message = refused("submit", "--run", overfit)
    assert "is an overfit run: one batch learned by heart and scored on its own training rows" in message
    assert message.endswith("it cannot be submitted; make a real run with: make experiment EXP=first")
    assert "mode    a smoke run" in podium("kernel", "build", "pair", "--run", smoke)
    folder = workspace.build / "kernels" / "pair"
    assert json.loads((folder / "MANIFEST.json").read_text())["run_mode"] == "smoke"
    cells = json.loads((folder / "pair.ipynb").read_text())["cells"]
    assert "a smoke run: a few steps over a few rows" in "".join("".join(cell["source"]) for cell in cells)
    podium("train", "second", "tracking.name=none", f"model.checkpoint=run:{overfit}")
    assert Run.list(workspace.runs, "second")[-1].record.init_from.mode == "overfit"


def test_where_there_is_no_real_run_its_name_means_none(workspace, podium, refused, monkeypatch):
    train(podium, monkeypatch, "smoke", "tracking.name=none")
    (record,) = Run.list(workspace.runs)
    why = (
        f"experiment first: only smoke and overfit runs of it have finished (the newest, {record.id}, is a smoke "
        "run), and its name never means one of them; get a real run with: make experiment EXP=first; or name that run "
        f"itself: --run {record.id} (RUN={record.id}, or run:{record.id} as a checkpoint)"
    )
    for command in (("predict", "first"), ("submit", "first"), ("kernel", "build", "pair")):
        assert refused(*command) == why
    assert refused("train", "second", "tracking.name=none") == why
    assert not Run.list(workspace.runs, "second")
    assert not (workspace.build / "kernels").exists()
    assert refused("resume", "first").endswith("first: no unfinished run; `make experiment EXP=first` starts one")


def test_a_run_that_lacks_a_fold_is_neither_predicted_nor_submitted(workspace, podium, refused, tmp_path):
    podium("train", "first", "tracking.name=none")
    (record,) = Run.list(workspace.runs)
    run = Run(record.path)
    assert run.read_record().fold_names == ("fold0", "fold1")
    before = {path: path.read_bytes() for path in run.path.glob("*.csv")}
    commands = [
        ("predict", "first"),
        ("predict", "--run", record.id),
        ("submit", "first"),
        ("kernel", "build", "pair"),
    ]

    def all_refuse(*words):
        for command in commands:
            message = refused(*command)
            assert all(word in message for word in words), message
        assert {path: path.read_bytes() for path in run.path.glob("*.csv")} == before
        assert not workspace.ledger.exists()
        assert not (workspace.build / "kernels").exists()

    def rewrite(record):
        run.record_file.write_text(json.dumps(sealed(record)))

    # A kernel has neither folds.csv nor the status to go by.
    packed = shutil.copytree(run.path, tmp_path / "packed", ignore=shutil.ignore_patterns("folds.csv"))
    data = workspace.data_dir("bbc-pairs")
    prediction.main(packed, data, tmp_path / "whole.csv")
    assert (tmp_path / "whole.csv").read_bytes() == run.submission_file.read_bytes()
    shutil.rmtree(packed / "fold1")
    with pytest.raises(PodiumError, match=r"fold1/result\.json: missing; "):
        prediction.main(packed, data, tmp_path / "half.csv")
    assert not (tmp_path / "half.csv").exists()
    result = run.path / "fold1" / "result.json"
    shutil.move(result, tmp_path / "result.json")
    all_refuse(f"{result}: missing; put it back from a copy, or ")
    # An older record does not name its folds.
    whole = json.loads(run.record_file.read_text())
    rewrite({key: value for key, value in whole.items() if key != "fold_names"})
    all_refuse(f"{result}: missing; put it back from a copy, or ")
    shutil.move(tmp_path / "result.json", result)
    shutil.copytree(run.path / "fold1", run.path / "fold1.bak")
    all_refuse(f"{run.path / 'fold1.bak'}: is no fold of this run, which has fold0, fold1; move it out of the run")
    shutil.rmtree(run.path / "fold1.bak")
    rewrite(whole | {"status": "running"})
    commands = [("predict", "--run", record.id), ("submit", "--run", record.id)]
    all_refuse(f"{run.path}: running; finish it with: make resume RUN={record.id}")
    rewrite(whole | {"mode": "smokey"})
    all_refuse("run.json: mode: 'smokey': no such mode; it is null, smoke or overfit")
    rewrite(whole)
    podium("submit", "first")
