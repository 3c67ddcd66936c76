"""What classical models make of small images, taken as rows of pixels: the floor for what looks at shapes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from threadpoolctl import threadpool_limits

Images = NDArray[np.uint8]
ESTIMATORS = ("nearest_neighbours", "logistic_regression", "svm_rbf")
FILES = ("baseline.json", "pixels.npy", "labels.npy")
NEIGHBOURS = 5
SVM_PENALTY = 10.0
PIXEL_PENALTY = 0.1  # weak: pixels between 0 and 1 need large weights


class PixelBaseline:
    """k-NN, multinomial logistic regression or an SVM with an RBF kernel; equal input gives bit-equal predictions.

    With 10,000 rows of 784 pixels to fit and as many to predict seconds, for the SVM about a minute.
    """

    def __init__(self, *, estimator: str, num_classes: int) -> None:
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator: {estimator!r} is unknown; known estimators: {', '.join(ESTIMATORS)}")
        self.estimator, self.num_classes = estimator, num_classes

    def fit(self, images: Images, labels: NDArray[np.int64]) -> Self:
        """Learn images (N, ...) of class indices (N,); a class that is absent gets probability 0."""
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self._images, self._labels = images, labels
        self.seen = np.unique(labels)
        with threadpool_limits(limits=1):
            # One class alone is nothing to fit: scikit-learn refuses it, and its probability is 1
            self._model = _create(self.estimator).fit(_rows(images), labels) if len(self.seen) > 1 else None
        return self

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Images (N, ...) -> probabilities (N, classes); the SVM's are its margins in a softmax, which only rank."""
        shares = np.zeros((len(images), self.num_classes))
        with threadpool_limits(limits=1):
            shares[:, self.seen] = 1.0 if self._model is None else self._probabilities(_rows(images))
        return shares

    def _probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        assert self._model is not None
        if self.estimator != "svm_rbf":
            shares: NDArray[np.float64] = self._model.predict_proba(rows)
            return shares
        margins = self._model.decision_function(rows)  # (N, seen), of two classes (N,)
        both = margins if margins.ndim == 2 else np.stack([-margins, margins], axis=1)
        ranked: NDArray[np.float64] = softmax(both, axis=1)
        return ranked

    def save(self, folder: Path) -> None:
        """Write what it was fitted on: a pickle of an estimator is safe from nobody and lasts no version."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"estimator": self.estimator, "num_classes": self.num_classes}
        (folder / FILES[0]).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        np.save(folder / FILES[1], self._images)
        np.save(folder / FILES[2], self._labels)


def load_pixel_baseline(folder: Path) -> PixelBaseline:
    """Fits again what `save` wrote. Raises ValueError for a folder without it."""
    for name in FILES:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name}, so no baseline of pixels was saved there")
    settings = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    images, labels = (np.load(folder / name, allow_pickle=False) for name in FILES[1:])
    return PixelBaseline(**settings).fit(images, labels)


def predict_pixel_baselines(
    train: Images, labels: NDArray[np.str_], test: Images, *, most_rows: int = 10_000
) -> Mapping[str, NDArray[np.str_]]:
    """Predicted labels of `test` by name of the model, each fitted on the first `most_rows` of `train` (N, H, W)."""
    names, codes = np.unique(labels[:most_rows], return_inverse=True)
    fitted = {name: PixelBaseline(estimator=name, num_classes=len(names)) for name in ESTIMATORS}
    return {name: names[model.fit(train[:most_rows], codes).predict(test).argmax(1)] for name, model in fitted.items()}


def _create(estimator: str) -> Any:  # noqa: ANN401 - scikit-learn carries no types
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    return {
        "nearest_neighbours": KNeighborsClassifier(NEIGHBOURS),
        "logistic_regression": LogisticRegression(C=PIXEL_PENALTY, max_iter=300),
        "svm_rbf": SVC(C=SVM_PENALTY, gamma="scale", cache_size=1000),
    }[estimator]


def _rows(images: Images) -> NDArray[np.float32]:
    """(N, ...) -> (N, pixels) from 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0
