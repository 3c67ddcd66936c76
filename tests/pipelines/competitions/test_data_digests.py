"""Whatever a competition reads has a digest, under a name that finds it again, and a change is refused by that name."""

import gzip
import shutil

import pytest
from tiny_competition import make_competition, write_lines

from components.files.digests import file_digest
from pipelines.competitions.competition import ImagePlaces
from pipelines.competitions.data_digests import digest_of, hash_data
from pipelines.errors import PodiumError
from pipelines.runs.record import RunRecord
from pipelines.runs.run import Run
from pipelines.training.execution import check_data

TABLE = ("id,text,label", "1,a,0", "2,b,1")


def images(train, test):
    return make_competition(input_columns=("image",), images=ImagePlaces("image", train, test))


@pytest.fixture
def data(tmp_path):
    """Tables, and images in folders within folders."""
    folder = tmp_path / "data" / "tiny-task"
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        write_lines(folder / name, *TABLE)
    for name in ("train_images/a.png", "train_images/deep/b.png", "test_images/a.png"):
        write_lines(folder / name, name)
    write_lines(folder / "folds" / "kfold.csv", "id,fold")
    write_lines(folder / "local_host" / "solution.csv", "id,label")
    write_lines(folder / "SHA256SUMS", "")
    return folder


def check(data, recorded):
    check_data(RunRecord(run="run", experiment="first_try", data_sha256=recorded), data, Run(data / "run"))


def test_tables_alone_have_the_digests_that_they_ever_had(data):
    expected = {name: file_digest(data / name) for name in ("sample_submission.csv", "test.csv", "train.csv")}
    assert hash_data(data) == hash_data(data, make_competition()) == expected
    assert list(hash_data(data)) == list(expected)


@pytest.mark.parametrize("name", ["train.csv.gz", "train.csv.zip", "train.zip", "Train.CSV", "training.zip"])
def test_a_table_under_another_name_has_one_and_may_not_change(data, name):
    (data / "train.csv").rename(data / name)
    recorded = hash_data(data, make_competition())
    assert set(recorded) == {name, "test.csv", "sample_submission.csv"}
    check(data, recorded)
    (data / name).write_bytes(gzip.compress(b"id,text,label\n1,a,1\n"))
    with pytest.raises(PodiumError, match=rf"^{name}: changed since run started; .* make experiment EXP=first_try$"):
        check(data, recorded)
    (data / name).unlink()
    with pytest.raises(PodiumError, match=rf"^{name}: changed since"):
        check(data, recorded)


def test_other_tables_that_a_competition_may_read_have_one(data):
    for name in ("more.tsv", "more.parquet", "more.tsv.gz", "pixels.npy"):
        write_lines(data / name, name)
    write_lines(data / "images.zip", "an archive that nothing reads")
    assert set(hash_data(data)) - {"train.csv", "test.csv", "sample_submission.csv"} == {
        "more.tsv", "more.parquet", "more.tsv.gz", "pixels.npy"
    }  # fmt: skip


def test_a_table_that_takes_the_place_of_another_is_named(data):
    (data / "train.csv").rename(data / "train.zip")
    recorded = hash_data(data, make_competition())
    write_lines(data / "train.csv", *TABLE)
    with pytest.raises(PodiumError, match=r"^train\.csv: is read now, where train\.zip was when run started; take "):
        check(data, recorded)


CHANGES = {
    "another content": lambda folder: write_lines(folder / "a.png", "changed"),
    "another content deep inside": lambda folder: write_lines(folder / "deep" / "b.png", "changed"),
    "one taken away": lambda folder: (folder / "a.png").unlink(),
    "one added": lambda folder: write_lines(folder / "c.png", "c"),
    "one renamed": lambda folder: (folder / "a.png").rename(folder / "c.png"),
    "two swapped": lambda folder: [
        (folder / "a.png").rename(folder / "c.png"),
        (folder / "deep" / "b.png").rename(folder / "a.png"),
        (folder / "c.png").rename(folder / "deep" / "b.png"),
    ],
    "all gone": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_of_images_has_one_digest(data, change):
    recorded = hash_data(data, images("train_images/{}", "test_images/{}.png"))
    assert set(recorded) == {"train.csv", "test.csv", "sample_submission.csv", "train_images/", "test_images/"}
    write_lines(data / "train_images" / ".DS_Store", "what a file browser leaves")
    check(data, recorded)
    CHANGES[change](data / "train_images")
    with pytest.raises(PodiumError, match=r"^train_images/: a file in it was changed, added or taken away since run "):
        check(data, recorded)


def test_images_beside_the_tables_are_one_folder_without_what_podium_writes(data):
    write_lines(data / "a.jpg", "pixels")
    recorded = hash_data(data, images("{}.jpg", "test_images/{}.png"))
    assert {"./", "test_images/"} < set(recorded)
    for name in ("folds/kfold.csv", "local_host/solution.csv", "SHA256SUMS"):
        write_lines(data / name, "written anew")
    check(data, recorded)
    write_lines(data / "a.jpg", "other pixels")
    with pytest.raises(PodiumError, match=r"^\./: a file in it was changed"):
        check(data, recorded)


def test_rows_of_an_array_have_the_digest_of_the_array(data):
    write_lines(data / "arrays" / "train.npy", "numbers")
    recorded = hash_data(data, images("arrays/train.npy#{}", "arrays/train.npy#{}"))
    assert recorded["arrays/train.npy"] == file_digest(data / "arrays" / "train.npy")


def test_the_digest_of_a_folder_is_the_same_elsewhere_and_through_links(data, tmp_path):
    digest = digest_of(data, "train_images/")
    shutil.copytree(data, tmp_path / "copy")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train_images").symlink_to(data / "train_images")
    assert digest_of(tmp_path / "copy", "train_images/") == digest_of(tmp_path / "linked", "train_images/") == digest
    assert digest_of(data, "no_images/") is None


def test_a_record_of_an_older_podium_is_held_against_what_it_names(data):
    write_lines(data / "train_images" / "a.png", "changed")
    check(data, {name: file_digest(data / name) for name in ("train.csv", "test.csv", "sample_submission.csv")})
