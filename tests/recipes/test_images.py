"""Whole runs on images, from an array and from files: what is scored, drawn, skipped, refused; and exact resume."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_images import DAMAGES, NUM_TEST, NUM_TRAIN

from components.models.xcit.model import create_xcit, save_xcit
from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.training import prediction

QUICK = ["tracking.name=none", "training.num_threads=1"]


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def refused(workspace, capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        podium(workspace, *arguments)
    assert exit_.value.code == 2
    assert not list(workspace.runs.rglob("run.json"))
    return capsys.readouterr().err.strip().rpartition("podium: ")[2]


def runs_of(workspace, experiment):
    return [Run(path.parent) for path in sorted(workspace.runs.glob(f"{experiment}/*/run.json"))]


def test_a_run_on_an_array_is_whole_repeatable_and_drawn(workspace, capsys, tmp_path):
    for _ in range(2):
        podium(workspace, "train", "smoke/xcit_nano_fashion", *QUICK)
    first, second = runs_of(workspace, "smoke_xcit_nano_fashion")
    assert first.metrics_file.read_bytes() == second.metrics_file.read_bytes()
    assert first.submission_file.read_bytes() == second.submission_file.read_bytes()
    record = first.read_record()
    pixels = np.load(workspace.data_dir("fashion-mnist") / "train_images.npy") / 255.0
    assert list(record.images.normalisation.mean) == pytest.approx([pixels.mean()])
    assert list(record.images.normalisation.std) == pytest.approx([pixels.std()])
    assert "train_images.npy" in record.data_sha256
    for name in ("fold0_class_attention.png", "fold0_cross_covariance.png"):
        assert min(Image.open(first.figures / name).size) > 200
    podium(workspace, "submit", "smoke/xcit_nano_fashion")
    assert "lb/public" in capsys.readouterr().out
    # Moved elsewhere, with the test files alone
    expected, data = first.submission_file.read_bytes(), tmp_path / "elsewhere"
    data.mkdir()
    for name in ("test.csv", "sample_submission.csv", "test_images.npy"):
        (workspace.data_dir("fashion-mnist") / name).rename(data / name)
    moved = first.path.rename(tmp_path / "run")
    prediction.main(moved, data, tmp_path / "out" / "submission.csv")
    assert (tmp_path / "out" / "submission.csv").read_bytes() == expected


def test_pixels_alone_are_an_experiment_too(workspace):
    overrides = ["tracking.name=none", "data.max_train_rows=40"]
    podium(workspace, "train", "fashion_nearest_neighbours", *overrides)
    (run,) = runs_of(workspace, "fashion_nearest_neighbours")
    (kept,) = run.path.rglob("pixels.npy")
    assert np.load(kept).shape == (40, 1, 28, 28)
    expected = run.submission_file.read_bytes()
    run.submission_file.unlink()
    podium(workspace, "predict", "fashion_nearest_neighbours")
    assert run.submission_file.read_bytes() == expected


def test_pixels_want_images_and_classes(workspace, capsys):
    overrides = ["model.name=pixel_baseline", "data.name=pixels"]
    message = refused(workspace, capsys, "train", "bbc_headlines_linear", *overrides)
    assert message == "data.name: pixels, but bbc_headlines has no images; needs the data of its own kind"


def test_the_mirrored_view_is_averaged(workspace):
    for tta in ("none", "flip"):
        podium(workspace, "train", "smoke/xcit_nano_fashion", *QUICK, "training.num_steps=2", f"data.tta={tta}")
    plain, averaged = (pd.read_parquet(run.oof_file) for run in runs_of(workspace, "smoke_xcit_nano_fashion"))
    columns = [name for name in plain if name.startswith("proba_")]
    assert not np.allclose(plain[columns], averaged[columns], atol=1e-9)
    assert np.allclose(averaged[columns].sum(axis=1), 1.0)


def test_files_are_read_by_workers_or_from_the_cache_to_the_same_end(workspace, leaves):
    # Crops would see other pixels in the cache
    overrides = [*QUICK, "data.crop_scale=1", "data.rand_augment=0"]
    podium(workspace, "train", "smoke/xcit_small_finetune", *overrides)
    podium(workspace, "train", "smoke/xcit_small_finetune", *overrides, "data.num_workers=0", "data.cache=true")
    first, second = runs_of(workspace, "smoke_xcit_small_finetune")
    assert first.submission_file.read_bytes() == second.submission_file.read_bytes()
    assert first.metrics_file.read_bytes() == second.metrics_file.read_bytes()
    cached = np.load(second.path / "cache" / "images.npy", mmap_mode="r")
    assert cached.shape == (NUM_TRAIN, 3, 32, 32)
    assert second.read_record().images.num_skipped == {"training": 0, "test": 0}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_bad_image_is_named_with_its_row_and_nothing_is_left(workspace, leaves, capsys, kind):
    damage, words = DAMAGES[kind]
    damage(leaves / "train_images" / "017.jpg")
    message = refused(workspace, capsys, "train", "smoke/xcit_small_finetune", *QUICK, "data.on_bad_image=error")
    assert f"training row 17 (id 017.jpg): {leaves / 'train_images' / '017.jpg'}: {words}" in message
    assert "data.on_bad_image=skip" in message


def test_bad_images_are_skipped_and_counted(workspace, leaves, capsys):
    for row, (damage, _) in enumerate(DAMAGES.values()):
        damage(leaves / "train_images" / f"{row:03d}.jpg")
    (leaves / "test_images" / "002.jpg").unlink()
    with pytest.warns(UserWarning, match="002.jpg: missing; answered for"):
        podium(workspace, "train", "smoke/xcit_small_finetune", *QUICK, "tracking.name=jsonl", "data.num_workers=0")
    assert f"{len(DAMAGES)} training images cannot be used and are skipped" in capsys.readouterr().err
    (run,) = runs_of(workspace, "smoke_xcit_small_finetune")
    found = run.read_record().images
    assert found.num_skipped == {"training": len(DAMAGES), "test": 1}
    assert found.skipped["training"]["000.jpg"].startswith("0 (id 000.jpg): ")
    assert len(pd.read_csv(run.submission_file)) == NUM_TEST
    tracked = "".join(path.read_text() for path in (run.path / "tracking").rglob("*.jsonl"))
    assert '"data/num_skipped_training"' in tracked


def test_published_weights_are_finetuned_as_the_experiment_says(workspace, leaves, tmp_path):
    """xcit_small_finetune as it stands, but for the size of weights and images."""
    save_xcit(create_xcit("xcit_nano_12_p16_224", num_classes=7, embed_dim=32, depth=2), tmp_path / "weights")
    overrides = [*QUICK, f"model.checkpoint={tmp_path / 'weights'}", "data.img_size=32", "data.num_workers=0"]
    overrides += ["training.num_epochs=1", "training.batch_size=8", "schedule.num_warmup_steps=1"]
    podium(workspace, "train", "xcit_small_finetune", *overrides, "training.mixed_precision=no")
    (run,) = runs_of(workspace, "xcit_small_finetune")
    assert run.read_record().images.normalisation.mean == (0.485, 0.456, 0.406)
    config = json.loads((run.trained_checkpoints()[0] / "config.json").read_text())
    assert config["num_classes"] == 5


@pytest.mark.parametrize(
    ("experiment", "overrides", "words"),
    [
        ("xcit_small_finetune", ["model.checkpoint=/nowhere"], ["model.name: xcit", "/nowhere"]),
        (
            "smoke/xcit_small_finetune",
            ["data.in_chans=1", "data.normalisation=imagenet"],
            ["normalisation", "in_chans: 1"],
        ),
        ("smoke/xcit_small_finetune", ["data.crop_scale=0"], ["crop_scale", "more than 0"]),
        ("smoke/xcit_small_finetune", ["model.checkpoint=x"], ["embed_dim: 16", "needs null"]),
        ("smoke/xcit_small_finetune", ["model.patch_size=5"], ["patch_size", "2, 4, 8, 16"]),
        ("smoke/xcit_small_finetune", ["training.z_loss=0.1"], ["z_loss", "xcit"]),
        ("smoke/xcit_small_finetune", ["competition=place_names"], ["images", "place_names has none"]),
        ("smoke/mt5_adafactor", ["data.name=images"], ["images", "needs text"]),
    ],
)
def test_a_wrong_wish_names_key_value_and_cure(workspace, leaves, capsys, experiment, overrides, words):
    folds = ["folds.name=kfold"] if "competition=place_names" in overrides else []
    message = refused(workspace, capsys, "train", experiment, *overrides, *folds)
    for word in words:
        assert word in message


def test_missing_images_of_a_kaggle_competition_are_asked_for(workspace, capsys):
    message = refused(workspace, capsys, "train", "xcit_small_finetune")
    assert "podium data download cassava-leaf-disease-classification" in message
