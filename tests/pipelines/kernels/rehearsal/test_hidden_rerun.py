"""Test sets that a hidden rerun may bring: other ids, more rows, none."""

import pandas as pd
import pytest
from tiny_competition import make_competition, write_lines

from pipelines.competitions.competition import ImagePlaces
from pipelines.kernels.rehearsal.hidden_rerun import FEW_ROWS, lay_out_data

COMPETITION = make_competition()


@pytest.fixture
def data(tmp_path):
    rows = range(FEW_ROWS + 20)
    write_lines(tmp_path / "data/train.csv", "id,text,label", "t1,a,0", "t2,b,1")
    write_lines(tmp_path / "data/test.csv", "id,text", *(f"x{row},word {row}" for row in rows))
    write_lines(tmp_path / "data/sample_submission.csv", "id,label", *(f"x{row},0.{row % 10}" for row in rows))
    write_lines(tmp_path / "data/folds/holdout.csv", "id,fold")
    write_lines(tmp_path / "data/more/extra.txt", "kept")
    return tmp_path / "data"


def lay_out(data, tmp_path, kind, competition=COMPETITION):
    folder = tmp_path / kind
    num_rows = lay_out_data(competition, data, folder, kind)
    read = [pd.read_csv(folder / name, dtype=str) for name in ("test.csv", "sample_submission.csv")]
    assert len(read[0]) == len(read[1]) == num_rows
    assert list(read[0]["id"]) == list(read[1]["id"])
    return folder, *read


def test_the_public_set_is_what_it_is_and_nothing_of_ours_goes_along(data, tmp_path):
    folder, *_ = lay_out(data, tmp_path, "public")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"train.csv", "test.csv", "sample_submission.csv", "more/extra.txt"}
    assert all((folder / name).read_bytes() == (data / name).read_bytes() for name in names)


@pytest.mark.parametrize(("kind", "num_rows"), [("larger", 150), ("few-larger", 125), ("few", 100), ("empty", 0)])
def test_other_sets_have_other_rows(data, tmp_path, kind, num_rows):
    before = {path: path.read_bytes() for path in data.rglob("*.csv")}
    folder, test, sample = lay_out(data, tmp_path, kind)
    assert len(test) == num_rows
    assert list(test.columns) == ["id", "text"]
    assert list(sample.columns) == ["id", "label"]
    assert test["id"].is_unique
    if "larger" in kind:
        assert not set(test["id"]) & {f"x{row}" for row in range(FEW_ROWS + 20)}
        assert list(test["text"]) != sorted(test["text"])
    assert (folder / "train.csv").read_bytes() == before[data / "train.csv"]
    # Linked files must not have been written through.
    assert {path: path.read_bytes() for path in data.rglob("*.csv")} == before


def test_whole_numbers_stay_whole_numbers(tmp_path):
    write_lines(tmp_path / "data/train.csv", "id,text,label", "1,a,0")
    write_lines(tmp_path / "data/test.csv", "id,text", "7,a", "9,b", "8,c", "6,d")
    write_lines(tmp_path / "data/sample_submission.csv", "id,label", "7,0", "9,0", "8,0", "6,0")
    _, test, _ = lay_out(tmp_path / "data", tmp_path, "larger")
    assert list(test["id"]) == ["10", "11", "12", "13", "14"]


def test_images_named_by_their_ids_get_files_under_the_new_names(tmp_path):
    competition = make_competition(
        input_columns=("id",), images=ImagePlaces("id", "train/{}", "test/{}"), test_role="sample"
    )
    for name in ("a.jpg", "b.jpg"):
        write_lines(tmp_path / "data/test" / name, name)
    write_lines(tmp_path / "data/sample_submission.csv", "id,label", "a.jpg,0", "b.jpg,0")
    folder = tmp_path / "larger"
    assert lay_out_data(competition, tmp_path / "data", folder, "larger") == 2
    ids = list(pd.read_csv(folder / "sample_submission.csv")["id"])
    assert ids == ["hidden00000000.jpg", "hidden00000001.jpg"]
    assert all((folder / "test" / name).read_text() in ("a.jpg\n", "b.jpg\n") for name in ids)
