"""Regressions whose targets lie far from 0, trained for real: what is learnt, kept beside the weights, and put back."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from loop_parts import interrupt_at
from podium_processes import products
from small_runs import strip_digests
from tiny_competition import install_competition
from tiny_regression import PLAIN, WITH_IMAGES, save_tiny_bert, write_experiment, write_pictures, write_texts

from components.data.target_scale import TARGETS_FILE, TargetScale, load_target_scale, measure_targets
from components.data.text.tokenizer import load_tokenizer
from components.models.bert.checkpoint import load_bert
from components.training.history import read_history
from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.training import prediction
from pipelines.workspace import Workspace


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout of two competitions: texts and images."""
    for name in ("SMOKE", "OVERFIT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    install_competition(monkeypatch, tmp_path / "table", **PLAIN)
    install_competition(monkeypatch, tmp_path / "table", **WITH_IMAGES)
    file = tmp_path / "table" / "tiny_pictures.py"
    places = "images=ImagePlaces('text', train='images/{}', test='images/{}')"
    text = file.read_text().replace("make_competition(**", f"make_competition({places}, **")
    file.write_text(f"from pipelines.competitions.competition import ImagePlaces\n{text}")
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def rows(workspace):
    """The training rows of both competitions, which have the same targets."""
    write_pictures(workspace.data_dir("tiny-pictures"))
    return write_texts(workspace.data_dir("tiny-task"))


@pytest.fixture
def train(workspace, rows, checkpoint):
    def run(family, *words):
        name = write_experiment(workspace.root, family, str(checkpoint))
        known = set(workspace.runs.glob(f"{name}/*"))
        main(["--root", str(workspace.root), "train", name, *words])
        (folder,) = set(workspace.runs.glob(f"{name}/*")) - known
        return Run(folder)

    return run


def training_targets(run, rows, fold):
    folds = pd.read_csv(run.folds_file)
    return rows["label"][(folds.iloc[:, 1] != fold).to_numpy()]


def by_hand(run, frame, restore):
    """What each fold's BERT says of texts, by itself."""
    said = []
    for folder in run.trained_checkpoints():
        model = load_bert(folder).eval()
        tokenizer = load_tokenizer(run.path / "vocabulary")
        with torch.inference_mode():
            ids = [tokenizer.encode([text], max_length=16).ids[0] for text in "text: " + frame["text"]]
            values = [
                model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)).logits.item() for row in ids
            ]
        said.append(restore(folder, np.array(values)))
    return np.mean(said, axis=0)


@pytest.mark.parametrize("family", ["bert", "t5", "xcit"])
def test_every_family_learns_targets_far_from_zero(train, workspace, rows, family):
    run = train(family)
    assert run.read_metrics()["oof/rmse"] < 0.2 * rows["label"].std()
    submission = pd.read_csv(run.submission_file)
    assert (abs(submission["label"] - np.where(submission["id"] % 2, 250_000, 150_000)) < 20_000).all()
    for fold, folder in enumerate(run.trained_checkpoints()):
        assert load_target_scale(folder) == measure_targets(training_targets(run, rows, fold))
    # The loss is that of the standardised targets
    losses = [
        entry["train/loss"] for entry in read_history(run.fold("fold0") / "history.jsonl") if "train/loss" in entry
    ]
    assert losses[0] < 10
    expected = run.submission_file.read_bytes()
    main(["--root", str(workspace.root), "predict", "--run", run.path.name])
    assert run.submission_file.read_bytes() == expected


def test_each_fold_puts_back_by_its_own_numbers(train, workspace, tmp_path):
    run = train("bert", "training.num_steps=5")
    scales = [TargetScale(1_000.0, 10.0), TargetScale(-500.0, 0.25)]
    for folder, scale in zip(run.trained_checkpoints(), scales, strict=True):
        (folder / TARGETS_FILE).write_text(json.dumps({"mean": scale.mean, "std": scale.std}))
    strip_digests(run.path)
    data = workspace.data_dir("tiny-task")
    # What a kernel has: the files that predicting reads, and nothing else
    moved = tmp_path / "kernel" / "run"
    for path in run.prediction_files():
        target = moved / path.relative_to(run.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    submission = prediction.main(moved, data, tmp_path / "kernel" / "submission.csv")
    test = pd.read_csv(data / "test.csv")
    expected = by_hand(run, test, lambda folder, values: load_target_scale(folder).restore(values))
    np.testing.assert_allclose(submission["label"].astype(float), expected, rtol=1e-6)
    assert abs(expected - 250).max() < 25


def test_a_checkpoint_of_a_former_version_predicts_as_it_did(train, workspace):
    run = train("bert", "training.num_steps=5")
    for folder in run.trained_checkpoints():
        (folder / TARGETS_FILE).unlink()
    strip_digests(run.path)
    main(["--root", str(workspace.root), "predict", "--run", run.path.name])
    test = pd.read_csv(workspace.data_dir("tiny-task") / "test.csv")
    said = pd.read_parquet(run.test_predictions_file)["prediction"].to_numpy()
    np.testing.assert_allclose(said, by_hand(run, test, lambda _, values: values), rtol=1e-4, atol=1e-5)
    # float32 through and through, as it was
    assert (said == said.astype(np.float32)).all()


def test_a_run_that_was_interrupted_ends_in_the_same_bytes(train, workspace, monkeypatch):
    words = ["training.ema_decay=0.9", "data.max_train_rows=20", "training.num_steps=30"]
    straight = train("bert", *words)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(patch, 25)
        train("bert", *words)
    (stopped,) = set(workspace.runs.glob("tiny_bert/*")) - {straight.path}
    assert load_target_scale(stopped / "fold0") == load_target_scale(straight.path / "fold0")
    main(["--root", str(workspace.root), "resume", "--run", stopped.name])
    assert products(stopped) == products(straight.path)


def test_a_fold_that_a_former_version_began_goes_on_as_it_began(train, workspace, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(patch, 25)
        train("bert", "fold=0", "training.num_steps=30")
    (stopped,) = workspace.runs.glob("tiny_bert/*")
    for file in stopped.rglob(TARGETS_FILE):
        file.unlink()
    main(["--root", str(workspace.root), "resume", "--run", stopped.name])
    assert not list(stopped.rglob(TARGETS_FILE))


def test_another_run_gives_its_weights_and_not_its_numbers(train, workspace, rows):
    first = train("bert", "fold=0")
    (source,) = first.trained_checkpoints()
    words = ["fold=1", f"model.checkpoint=run:{first.path.name}", "optimizer.lr=1e-9", "training.num_steps=1"]
    second = train("bert", *words)
    (folder,) = second.trained_checkpoints()
    assert load_target_scale(second.path / "init") == load_target_scale(source)
    assert load_target_scale(folder) == measure_targets(training_targets(second, rows, 1)) != load_target_scale(source)
    # The head has stayed, and speaks of the second run's targets from its first step on
    assert second.read_metrics()["oof/rmse"] < 0.2 * rows["label"].std()


def test_equal_targets_are_predicted_as_they_are(train, workspace, rows):
    folder = workspace.data_dir("tiny-task")
    rows.assign(label=20_240_131).to_csv(folder / "train.csv", index=False)
    run = train("bert", "fold=0", "training.num_steps=2")
    assert set(pd.read_csv(run.submission_file)["label"]) == {20_240_131.0}
    assert run.read_metrics()["oof/rmse"] == 0.0


def test_the_overfit_mode_judges_what_is_learnt(train, monkeypatch, capsys):
    monkeypatch.setenv("OVERFIT", "1")
    train("bert", "fold=0")
    assert "the model learns its batch" in capsys.readouterr().err


def test_the_rows_that_count_are_those_trained_on(train, rows):
    run = train("bert", "fold=0", "data.max_train_rows=7", "training.num_steps=2")
    used = training_targets(run, rows, 0).sample(7, random_state=0)
    assert load_target_scale(run.trained_checkpoints()[0]) == measure_targets(used)
