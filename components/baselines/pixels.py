"""What classical models make of small images, taken as rows of pixels: the floor for what looks at shapes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
NEIGHBOURS = 5
SVM_PENALTY = 10.0


def predict_pixel_baselines(
    train: Images, labels: NDArray[np.str_], test: Images, *, most_rows: int = 10_000
) -> Mapping[str, NDArray[np.str_]]:
    """Predicted labels of `test` by name of the model, each fitted on the first `most_rows` of `train` (N, H, W).

    k-NN, multinomial logistic regression and an SVM with an RBF kernel; with 10,000 rows of 784 pixels and as many to
    predict about a minute, most of it the SVM's.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    models = {
        "nearest_neighbours": KNeighborsClassifier(NEIGHBOURS),
        # A weak penalty: pixels between 0 and 1 need large weights
        "logistic_regression": LogisticRegression(C=0.1, max_iter=300),
        "svm_rbf": SVC(C=SVM_PENALTY, gamma="scale", cache_size=1000),
    }
    rows, asked = _rows(train[:most_rows]), _rows(test)
    return {name: model.fit(rows, labels[:most_rows]).predict(asked) for name, model in models.items()}


def _rows(images: Images) -> NDArray[np.float32]:
    """(N, H, W) -> (N, H * W) from 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0
