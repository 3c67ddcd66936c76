"""Fashion-MNIST (arXiv:1708.07747): 70,000 grey pictures of clothes, 28 pixels a side, in ten kinds.

Debian carries it (dataset-fashion-mnist, MIT); the split is the official one. Images are two arrays beside the tables
rather than 70,000 files or 784 columns: they open in a millisecond, map into memory and have one digest each.
"""

import gzip
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.files.digests import file_digest
from pipelines.competitions.competition import Competition, FoldDefaults, ImagePlaces, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, row_id, usage_of, write_tables
from pipelines.competitions.sources.debian_package import unpacked
from pipelines.errors import PodiumError

PACKAGE, INSTALLED = "dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE = "PODIUM_FASHION_MNIST"
SOURCE = "https://github.com/zalandoresearch/fashion-mnist"
OTHERWISE = f"put the four files of {SOURCE} into a folder and set {FOLDER_VARIABLE} to it"
CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

Pixels = NDArray[np.uint8]


def prepare(folders: PreparationFolders) -> None:
    """Find or fetch the files and write the competition; a minute and a half on one core, most of it the baselines."""
    with _find_folder() as folder:
        parts = [read_idx(folder / f"{part}-{kind}-ubyte.gz") for part, kind in _FILES]
        digest = file_digest(folder / "train-images-idx3-ubyte.gz")
    write_tables(build_tables(*parts), folders, source=f"{PACKAGE}, training images {digest[:16]}")


_FILES = [(part, kind) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@contextmanager
def _find_folder() -> Iterator[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    if named is None:
        with unpacked(PACKAGE, INSTALLED, otherwise=OTHERWISE) as folder:
            yield folder
    else:
        yield Path(named).expanduser()


def read_idx(path: Path) -> Pixels:
    """An array of bytes in gzipped IDX: two zeros, the type 8, the number of axes, their sizes, the data."""
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, num_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{num_axes}I", content[4 : 4 + 4 * num_axes])
        if (zeros, kind) != (0, 8):
            raise ValueError("not an array of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)
    except FileNotFoundError:
        raise PodiumError(f"{path}: missing; {OTHERWISE}") from None
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise PodiumError(f"{path}: unreadable ({error}); {OTHERWISE}") from error


def build_tables(train: Pixels, train_labels: Pixels, test: Pixels, test_labels: Pixels) -> EmbeddedTables:
    """Images (N, 28, 28) and class numbers (N,) as a competition; rows keep the official order."""
    from components.baselines.pixels import predict_pixel_baselines

    names = np.array(CLASS_NAMES)
    tables = {part: _table(part, len(images)) for part, images in (("train", train), ("test", test))}
    labelled = tables["train"].assign(label=names[train_labels])
    ids = tables["test"]["id"]
    solution = pd.DataFrame({"id": ids, "label": names[test_labels], "usage": [usage_of(row) for row in ids]})
    guesses = predict_pixel_baselines(train, names[train_labels], test)
    return EmbeddedTables(
        labelled,
        tables["test"],
        pd.DataFrame({"id": ids, "label": CLASS_NAMES[0]}),
        solution,
        {name: pd.DataFrame({"id": ids, "label": guessed}) for name, guessed in guesses.items()},
        {"train_images.npy": train, "test_images.npy": test},
    )


def _table(part: str, num_rows: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [row_id(part, str(row)) for row in range(num_rows)], "image": range(num_rows)})


COMPETITION = Competition(
    name="fashion_mnist",
    title="Fashion-MNIST",
    task="multiclass",
    kaggle_slug="fashion-mnist",
    host="local",
    id_column="id",
    input_columns=("image",),
    label_columns=("label",),
    class_names=CLASS_NAMES,
    images=ImagePlaces("image", train="train_images.npy#{}", test="test_images.npy#{}"),
    metric="accuracy",
    extra_metrics=("macro_f1",),
    folds=FoldDefaults(name="holdout", valid_fraction=0.05),
    prepare=prepare,
)
