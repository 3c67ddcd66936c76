"""Classical models on pixels: what is kept fits again to the same predictions, whatever classes were there to learn."""

import numpy as np
import pytest
from sklearn.svm import SVC
from tiny_images import make_pixels

from components.baselines.pixels import ESTIMATORS, PixelBaseline, load_pixel_baseline, predict_pixel_baselines

LABELS = np.arange(60) % 3


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_saved_baseline_predicts_the_same_bits(tmp_path, name):
    images = make_pixels(60)
    fitted = PixelBaseline(estimator=name, num_classes=4).fit(images, LABELS)
    shares = fitted.predict(images[:7])
    assert shares.shape == (7, 4)
    assert np.allclose(shares.sum(1), 1.0)
    assert not shares[:, 3].any()  # a class that nothing was seen of
    fitted.save(tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["baseline.json", "labels.npy", "pixels.npy"]
    assert np.array_equal(load_pixel_baseline(tmp_path / "kept").predict(images[:7]), shares)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_margins_rank_as_the_svm_decides(num_classes):
    images, labels = make_pixels(60), np.arange(60) % num_classes
    shares = PixelBaseline(estimator="svm_rbf", num_classes=num_classes).fit(images, labels).predict(images)
    rows = images.reshape(60, -1).astype(np.float32) / 255.0
    assert np.array_equal(shares.argmax(1), SVC(C=10.0).fit(rows, labels).predict(rows))


def test_one_class_alone_is_certain():
    fitted = PixelBaseline(estimator="svm_rbf", num_classes=2).fit(make_pixels(5), np.ones(5, dtype=np.int64))
    assert fitted.predict(make_pixels(2)).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_the_rows_of_a_leaderboard_have_names_for_classes():
    names = np.array(["bag", "coat", "dress"])[LABELS]
    guesses = predict_pixel_baselines(make_pixels(60), names, make_pixels(60)[:3], most_rows=30)
    assert set(guesses) == set(ESTIMATORS)
    assert guesses["nearest_neighbours"].dtype == names.dtype


def test_what_cannot_be_is_named(tmp_path):
    with pytest.raises(ValueError, match="estimator: 'tree' is unknown; known estimators: nearest_neighbours"):
        PixelBaseline(estimator="tree", num_classes=2)
    with pytest.raises(ValueError, match="5 images but 4 labels"):
        PixelBaseline(estimator="svm_rbf", num_classes=2).fit(make_pixels(5), np.zeros(4, dtype=np.int64))
    with pytest.raises(ValueError, match=r"no baseline\.json, so no baseline of pixels was saved there"):
        load_pixel_baseline(tmp_path)
