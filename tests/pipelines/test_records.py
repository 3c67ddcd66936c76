"""Records are read with every entry held to its type."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.addresses import KernelName, KernelVersion, RecordedVersion
from pipelines.records import DamagedRecord, DataFile, Digest, Place, Record, Time


class State(StrEnum):
    OPEN = "open"
    SHUT = "shut"


@dataclass(frozen=True, kw_only=True)
class Inner(Record):
    count: int


@dataclass(frozen=True, kw_only=True)
class Door(Record):
    name: str
    state: State
    seconds: float | None = None
    files: Mapping[Place, Digest] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    inner: Inner | None = None
    kernel: RecordedVersion | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


WHOLE = Door(
    name="front",
    state=State.SHUT,
    seconds=2.5,
    files={"fold0/result.json": "a" * 64},
    words=("a", "b"),
    inner=Inner(count=3),
    kernel=KernelVersion(KernelName("anna", "digits"), 4),
    facts={"x": [1, {"y": None}]},
)


def test_a_record_is_written_and_read_with_its_fields_in_their_order(tmp_path: Path) -> None:
    WHOLE.write(tmp_path / "door.json")
    assert Door.read(tmp_path / "door.json") == WHOLE
    assert list(json.loads(WHOLE.line())) == ["name", "state", "seconds", "files", "words", "inner", "kernel", "facts"]
    assert json.loads(WHOLE.line())["kernel"] == "anna/digits/4"


def test_what_is_at_its_default_is_not_written_and_what_a_later_version_added_is_passed_over() -> None:
    door = Door(name="back", state=State.OPEN)
    assert door.line() == '{"name": "back", "state": "open"}'
    assert Door.parse('{"name": "back", "state": "open", "colour": "red"}', "door.json") == door


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"state": "ajar"}, "door.json: state: 'ajar' is not 'open' or 'shut'"),
        ({"name": 3}, "door.json: name: 3 is not a text"),
        ({"seconds": "3"}, "door.json: seconds: '3' is not a number"),
        ({"seconds": True}, "door.json: seconds: True is not a number"),
        ({"words": "abc"}, "door.json: words: 'abc' is not a list"),
        ({"files": [1]}, "door.json: files: [1] is not an object"),
        ({"inner": {}}, "door.json: inner.count: missing"),
        ({"inner": {"count": 1.5}}, "door.json: inner.count: 1.5 is not a whole number"),
        ({"files": {"../x": "a" * 64}}, "door.json: files.../x: '../x' does not stay in its folder"),
        ({"files": {"x": "a"}}, "door.json: files.x: 'a' is no sha256"),
        ({"kernel": "anna/digits"}, "door.json: kernel: 'anna/digits' is no address on Kaggle"),
        ({"kernel": "anna/digits/v4"}, "door.json: kernel: 'anna/digits/v4' is no version of a kernel"),
    ],
)
def test_a_wrong_entry_is_one_line_that_names_file_and_field(change: dict[str, Any], line: str) -> None:
    with pytest.raises(DamagedRecord) as error:
        Door.of(WHOLE.entries() | change, "door.json")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"name": "a"', "[" * 9000, b"\xff\xfe", '{"name": "a"}'])
def test_a_text_that_is_no_record_is_one_line_that_names_the_file(text: str | bytes) -> None:
    with pytest.raises(DamagedRecord, match=r"^door\.json: ") as error:
        Door.parse(text, "door.json")
    assert "\n" not in str(error.value)


def test_lines_are_read_but_for_one_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "doors.jsonl"
    assert Door.read_lines(path) == []
    path.write_text(f'{WHOLE.line()}\n{WHOLE.line()}\n{{"name": "to')
    assert Door.read_lines(path) == [WHOLE, WHOLE]
    path.write_text(f'{WHOLE.line()}\n{{"name": 3}}\n{WHOLE.line()}\n')
    with pytest.raises(DamagedRecord) as error:
        Door.read_lines(path)
    assert str(error.value) == f"{path}: line 2: name: 3 is not a text"


def test_a_key_with_a_line_break_is_shown_on_one_line() -> None:
    with pytest.raises(DamagedRecord) as error:
        Door.of(WHOLE.entries() | {"files": {"a\nb": "a" * 64}}, "door.json")
    assert str(error.value).startswith("door.json: files.a\\nb: 'a\\nb' is no name; ")


@pytest.mark.parametrize(
    ("kind", "sound", "wrong", "line"),
    [
        (Time, "2026-11-21T12:00:00+00:00", "2026-11-21T12:00:00", "is no time with a zone; needs one such as 2026-"),
        (DataFile, "train_images/", "/etc/", "does not stay in its folder"),
        (DataFile, "./", "../", "does not stay in its folder"),
    ],
)
def test_times_and_files_of_data(kind: Any, sound: str, wrong: str, line: str) -> None:
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(sound) == sound
    with pytest.raises(ValidationError, match=line):
        adapter.validate_python(wrong)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DamagedRecord, match=r"none\.json: unreadable \(No such file or directory\)"):
        Door.read(tmp_path / "none.json")
