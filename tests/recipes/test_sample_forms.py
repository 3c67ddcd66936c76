"""Whole runs of a real baseline on files of odd forms: what is submitted has the sample's form and the right rows."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_competition import install_competition, write_lines
from tiny_images import write_leaves

from pipelines.cli import main
from pipelines.competitions.competition import FoldDefaults, ImagePlaces
from pipelines.kernels.rehearsal.hidden_rerun import lay_out_data
from pipelines.training import prediction
from pipelines.workspace import Workspace

TABLE = "name: tiny, competition: tiny_task, model: {name: linear_baseline, estimator: linear}, data: {name: table}"
PIXELS = "name: tiny, competition: tiny_task, model: {name: pixel_baseline}, data: {name: pixels, img_size: 8}"
NUM_TRAIN, NUM_TEST = 48, 12
ODD = ("id", "label", "fold", "prediction", "score", "x")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train the baseline on a competition; gives its run directory and its data."""

    def train(frames, experiment=TABLE, **changes):
        workspace = Workspace(tmp_path)
        fields = {"metric": "auc", "extra_metrics": (), "folds": FoldDefaults("kfold", num_folds=2)}
        competition = install_competition(monkeypatch, tmp_path / "made", **(fields | changes))
        data_dir = workspace.data_dir("tiny-task")
        data_dir.mkdir(parents=True, exist_ok=True)
        for name, frame in frames.items():
            frame.to_csv(data_dir / f"{name}.csv", index=False)
        write_lines(workspace.experiments / "tiny.yaml", f"{{{experiment}}}")
        main(["--root", str(tmp_path), "train", "tiny", "tracking.name=none"])
        (folder,) = (workspace.runs / "tiny").iterdir()
        return competition, folder, data_dir

    return train


def frames(labels, sample, **inputs):
    """Train, test and sample; the columns of the sample are made of the test rows."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"row": range(100, 100 + NUM_TRAIN + NUM_TEST), **inputs})
    table["x"] = generator.normal(size=len(table)).round(3)
    test = table[NUM_TRAIN:]
    asked = {name: test.get(name, cell) for name, cell in sample.items()}
    return {
        "train": table[:NUM_TRAIN].assign(**labels(table[:NUM_TRAIN])),
        "test": test,
        "sample_submission": pd.DataFrame(asked),
    }


def test_columns_called_as_podiums_own_and_an_answer_before_the_id(run):
    noise = np.random.default_rng(1).choice(["red", "green"], NUM_TRAIN + NUM_TEST)
    made = frames(
        lambda rows: {"target": (rows["x"] > 0).astype(int)},
        {"target": 0.5, "label": "", "row": 0, "Usage": "Public"},
        id=noise[::-1], label=noise, fold=noise, prediction=noise, score=noise[::-1],
    )  # fmt: skip
    fields = {"id_column": "row", "input_columns": ODD, "label_columns": ("target",)}
    competition, folder, data_dir = run(made, **fields)
    oof = pd.read_parquet(folder / "oof.parquet")
    assert oof["id"].tolist() == [str(row) for row in made["train"]["row"]]
    assert oof["true_label"].tolist() == made["train"]["target"].tolist()
    written = pd.read_csv(folder / "submission.csv", dtype=str)
    assert list(written.columns) == ["target", "label", "row", "Usage"]
    for name in ("label", "row", "Usage"):
        assert written[name].tolist() == made["sample_submission"][name].astype(str).tolist()
    # The answers belong to their rows: x alone tells them.
    assert (written["target"].astype(float).to_numpy() > 0.5).tolist() == pytest.approx(
        made["test"]["x"].gt(0).tolist()
    )

    hidden = folder / "hidden"
    assert lay_out_data(competition, data_dir, hidden, "larger") == 15
    (hidden / "train.csv").unlink()
    again = prediction.main(folder, hidden, folder / "hidden.csv")
    assert again["row"].tolist() == [str(row) for row in range(160, 175)]
    assert again["label"].tolist() == pd.read_csv(hidden / "test.csv")["label"].tolist()


def test_grades_are_predicted_without_train(run, tmp_path):
    made = frames(
        lambda rows: {"y": (rows["x"] * 1.5).round().clip(-2, 2).astype(int) + 3},
        {"row": 0, "y": 0},
    )
    fields = {"id_column": "row", "input_columns": ("x",), "label_columns": ("y",), "task": "regression"}
    _, folder, data_dir = run(made, metric="qwk", **fields)
    assert json.loads((folder / "run.json").read_text())["grades"] == [1, 5]
    before = (folder / "submission.csv").read_bytes()
    answers = pd.read_csv(folder / "submission.csv")["y"]
    assert answers.dtype == np.int64
    assert answers.between(1, 5).all()
    (data_dir / "train.csv").unlink()
    main(["--root", str(tmp_path), "predict", "--run", folder.name])
    assert (folder / "submission.csv").read_bytes() == before


def test_a_class_that_no_training_row_has(run):
    made = frames(
        lambda rows: {"kind": np.where(rows["x"] > 0, "b", "a")},
        {"row": 0, "kind_c": 0.3, "kind_a": 0.3, "kind_b": 0.4},
    )
    names = {"class_names": ("c", "a", "b"), "class_columns": ("kind_c", "kind_a", "kind_b")}
    fields = {"id_column": "row", "input_columns": ("x",), "label_columns": ("kind",), "task": "multiclass"}
    _, folder, _ = run(made, metric="log_loss", **fields, **names)
    written = pd.read_csv(folder / "submission.csv")
    assert list(written.columns) == ["row", "kind_c", "kind_a", "kind_b"]
    assert (written["kind_c"] == 0).all()
    assert ((written["kind_b"] > 0.5).to_numpy() == (made["test"]["x"] > 0).to_numpy()).all()


def test_images_that_are_named_by_the_id(run, tmp_path):
    leaves = tmp_path / "leaves"
    write_leaves(leaves)
    train = pd.read_csv(leaves / "train.csv")
    places = ImagePlaces(column="id", train=f"{leaves}/train_images/{{}}", test=f"{leaves}/train_images/{{}}")
    made = {
        "train": pd.DataFrame({"id": train["image_id"], "y": [row % 2 for row in range(len(train))]}),
        "sample_submission": pd.DataFrame({"id": train["image_id"][:3], "y": 0.5}),
    }
    fields = {"input_columns": ("id",), "label_columns": ("y",), "images": places, "test_role": "sample"}
    _, folder, _ = run(made, PIXELS, **fields)
    assert pd.read_csv(folder / "submission.csv")["id"].tolist() == train["image_id"][:3].tolist()
    assert pd.read_parquet(folder / "oof.parquet")["id"].tolist() == train["image_id"].tolist()
