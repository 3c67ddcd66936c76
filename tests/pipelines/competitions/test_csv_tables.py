"""Every cell stands under its own name, or the table is refused with the line that is wrong."""

import csv
import gzip
import io
import random
import zipfile

import pytest

from pipelines.competitions.csv_tables import line_of_row, open_table
from pipelines.competitions.kaggle_files import KaggleFiles
from pipelines.competitions.tables import check_ids, load_table
from pipelines.errors import PodiumError


def table_of(tmp_path, content):
    path = tmp_path / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path)


RIGHT = {
    "as it should be": ("id,x\n1,a\n2,b\n", [["1", "a"], ["2", "b"]]),
    "a comma at the end of every row": ("id,x\n1,a,\n2,b,\n", [["1", "a"], ["2", "b"]]),
    "two commas at the end of every row": ("id,x\n1,a,,\n2,b,,\n", [["1", "a"], ["2", "b"]]),
    "a comma at the end of every row and blank lines": ("id,x\n\n1,a,\n  \n2,b,\n", [["1", "a"], ["2", "b"]]),
    "a comma at the end of the header alone": ("id,x,\n1,a\n2,b\n", [["1", "a"], ["2", "b"]]),
    "a mark of byte order": ("\ufeffid,x\n1,a\n", [["1", "a"]]),
    "Windows' line ends": ("id,x\r\n1,a\r\n2,b\r\n", [["1", "a"], ["2", "b"]]),
    "an old Mac's line ends": ("id,x\r1,a\r2,b\r", [["1", "a"], ["2", "b"]]),
    "no line end at the end": ("id,x\n1,a\n2,b", [["1", "a"], ["2", "b"]]),
    "line breaks in quotes": (
        'id,x\n1,"a\nb"\n2,"c\r\nd"\n3,"e\rf"\n',
        [["1", "a\nb"], ["2", "c\r\nd"], ["3", "e\rf"]],
    ),
    "quotes within a cell": ('id,x\n1,a "b" c\n2,"b"d\n', [["1", 'a "b" c'], ["2", "bd"]]),
    "empty cells": ("id,x\n1,\n,b\n,\n", [["1", ""], ["", "b"], ["", ""]]),
    "words for nothing": ("id,x\n007,NA\n1E5,null\n", [["007", "NA"], ["1E5", "null"]]),
    "a NUL": ("id,x\n1,a\x00b\n", [["1", "a\x00b"]]),
    "a cell of 300,000 letters": ("id,x\n1," + "z" * 300_000 + "\n", [["1", "z" * 300_000]]),
    "no rows": ("id,x\n", []),
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_cell_stands_under_its_name(tmp_path, name):
    content, rows = RIGHT[name]
    table = table_of(tmp_path, content)
    assert table.columns == ("id", "x")
    assert table.read().to_numpy().tolist() == rows
    assert table.read(["x"])["x"].tolist() == [cells[1] for cells in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,x\n1,a,\n2,b\n", r"line 2, beginning with '1': 3 cells, but the header has 2;"),
        ("id,x\n1,a\n2,b\n3,c,\n", r"line 4, beginning with '3': 3 cells, but the header has 2;"),
        ("id,x\n1,a,\n2,fine, one\n", r"line 3, beginning with '2': 3 cells, but the header has 2;"),
        ("id,x\n1,a,7\n2,b,8\n", r"line 2, beginning with '1': 3 cells, but the header has 2 \(2 such rows\);"),
        ("id,x,y\n1,a,2\n2,b\n", r"line 3, beginning with '2': 2 cells, but the header has 3;"),
        ("id,x,y\n1,a\n2,b\n", r"line 2, beginning with '1': 2 cells, but the header has 3 \(2 such rows\);"),
        ('id,x\n1,"a\nb"\n\n2,b\n3,c,d\n', r"line 6, beginning with '3': 3 cells"),
        ('id,x\n1,a\n2,"b\nc",d\n', r"lines 3 to 4, by their quotes one row, beginning with '2': 3 cells"),
        ('id,x\n1,a\n""\n', r"line 3, beginning with '': 1 cell, but the header has 2;"),
        ('id,x\n1,a\n2,"b\n3,c\n4,d\n', r"a quote that opens in the row of line 3 is not closed there"),
        ('id,x\n1,a\n2,"b\n3,c\n4,"d"\n5,e\n', r"a quote that opens in the row of line 3 is not .* runs to line 5\)"),
        (b"id,x\n1,a\n2,caf\xe9\n", r"line 3: byte 0xe9 is not UTF-8; write the file in UTF-8"),
        ("id,x\n1,a\n".encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        ("id;x\n1;a,b\n", r"line 2, .* 2 cells, but the header has 1; cells are separated by commas"),
        ("", r"the file is empty"),
        ("\n\n", r"the file is empty"),
    ],
)
def test_any_other_number_of_cells_is_refused_with_the_line(tmp_path, content, message):
    with pytest.raises(PodiumError, match=message) as refusal:
        table_of(tmp_path, content).read()
    assert str(refusal.value).startswith(f"{tmp_path / 'train.csv'}: ")
    assert "\n" not in str(refusal.value)


def test_packed_tables_are_read_as_plain_ones(tmp_path):
    content = 'id,x\n1,"a\nb",\n2,c,\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content.encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner/a.csv", content)
        archive.writestr("__MACOSX/._a.csv", "not a table")
    for name in ("a.csv.gz", "a.zip"):
        assert open_table(tmp_path / name).read().to_numpy().tolist() == [["1", "a\nb"], ["2", "c"]]
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.csv", content)
        archive.writestr("b.csv", content)
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(content.encode() * 1000)[:40])
    (tmp_path / "d.zip").write_bytes(b"PK no archive")
    for name, message in (("b.zip", "holds 2 files"), ("c.csv.gz", "not a table that"), ("d.zip", "not a zip file")):
        with pytest.raises(PodiumError, match=rf"{name}: .*{message}"):
            open_table(tmp_path / name)


def test_lines_are_counted_over_line_breaks_and_blank_lines(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('\nid,x\n1,"a\nb"\n\n2,b\n1,c\n', encoding="utf-8")
    assert [line_of_row(path, row) for row in range(3)] == [3, 6, 7]
    frame = load_table(path, needed=["id"], cure="podium data")
    with pytest.raises(PodiumError, match=r"column id: 1 stands in lines 3 and 7 \(1 such rows\)"):
        check_ids(frame, "id", path)


def test_a_name_that_stands_twice_is_refused_where_it_is_needed(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("id,x,y,x\n1,2,3,4\n", encoding="utf-8")
    assert load_table(path, needed=["id", "y"], cure="podium data")["y"].tolist() == ["3"]
    with pytest.raises(PodiumError, match="column x stands twice in the header; rename one"):
        load_table(path, needed=["id", "x"], cure="podium data")


def test_both_readers_of_a_competition_see_the_same_cells(tmp_path):
    for name, content in (("train", "id,x,y\n1,a,0,\n2,b,1,\n"), ("test", "id,x\n3,c\n"), ("sample", "id,y\n3,0\n")):
        (tmp_path / f"{name}.csv").write_text(content, encoding="utf-8")
    files = KaggleFiles(tmp_path)
    whole = load_table(tmp_path / "train.csv", needed=["id", "x", "y"], cure="podium data")
    assert files.columns["train"] == list(whole.columns) == ["id", "x", "y"]
    assert {name: files.column("train", name).tolist() for name in files.columns["train"]} == whole.to_dict("list")
    assert whole.to_dict("list") == {"id": ["1", "2"], "x": ["a", "b"], "y": ["0", "1"]}
    assert files.line("train", 1) == 3


def test_random_tables_are_read_as_their_rows_or_refused(tmp_path):
    """1,500 tables of commas, quotes and line ends: no cell moves."""
    generator, path, num_read = random.Random(0), tmp_path / "train.csv", 0
    parts = ["a", ",", ",", '"', '""', "\n", "\r\n", " ", '"x"', '"a,b"', '"a\nb"', "x,y\n", "x,y\n", "x,y\n", "x,y\n"]
    for _ in range(1500):
        text = "id,x\n" + "".join(generator.choices(parts, k=generator.randint(1, 12)))
        path.write_text(text, encoding="utf-8", newline="")
        try:
            frame = open_table(path).read()
        except PodiumError:
            continue
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if "".join(row).strip() or len(row) > 1]
        assert frame.to_numpy().tolist() == [row[:2] for row in rows[1:]], text
        num_read += 1
    assert num_read > 200
