"""Records: what one room writes down and another one reads, as frozen dataclasses.

A record's fields are the entries of its JSON object, in their order. It is read with every entry held to its type, so
that whatever was edited, torn or written by others is one line that names the file and the field. Entries that a later
version added are passed over; a field at its default is not written.
"""

import json
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, TypeAdapter, ValidationError

from components.files.atomic import write_json
from components.files.json_lines import whole_lines
from pipelines import names
from pipelines.addresses import KernelName, KernelVersion
from pipelines.errors import PodiumError

Digest = Annotated[str, AfterValidator(names.digest)]
Commit = Annotated[str, AfterValidator(names.commit)]
Name = Annotated[str, AfterValidator(names.name)]
Place = Annotated[str, AfterValidator(names.place)]
Slug = Annotated[str, AfterValidator(names.slug)]
ExperimentName = Annotated[str, AfterValidator(names.experiment)]
Version = Annotated[str, AfterValidator(names.version)]
DataFile = Annotated[str, AfterValidator(names.data_file)]
Time = Annotated[str, AfterValidator(names.moment)]


# pydantic's words for a type, and plainer ones.
_WORDS = {
    "a valid string": "a text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "an object",
    "a valid mapping": "an object",
}


class DamagedRecord(PodiumError):
    """A record that cannot be read; the message names its file and, where one is wrong, the field."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One JSON object with known entries; the base of every record."""

    @classmethod
    def parse(cls, text: str | bytes, place: object) -> Self:
        """The record that a JSON text holds. Raises DamagedRecord, which begins with `place`."""
        kind: type = cls  # which mypy sees to be hashable
        try:
            record: Self = _adapter(kind).validate_json(text, strict=True)
            return record
        except ValidationError as error:
            raise DamagedRecord(f"{place}: {_describe(error)}") from None

    @classmethod
    def of(cls, content: object, place: object) -> Self:
        """The record that JSON values hold, as `json.loads` returns them. Raises DamagedRecord."""
        return cls.parse(json.dumps(content), place)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file. Raises DamagedRecord, for a file that is missing or unreadable as well."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedRecord(f"{path}: unreadable ({error.strerror or error})") from None
        return cls.parse(content, path)

    @classmethod
    def read_lines(cls, path: Path) -> list[Self]:
        """The records of a file of JSON lines; none where there is no file.

        What follows the last line break was torn by a kill, and counts as not written unless it is whole. Raises
        DamagedRecord, which names file, line and field.
        """
        try:
            lines = whole_lines(path)
        except OSError as error:
            raise DamagedRecord(f"{path}: unreadable ({error.strerror or error})") from None
        return [cls.parse(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]

    def write(self, path: Path) -> None:
        """Write it as a file, whole or not at all. Raises OSError where the disk does not take it."""
        write_json(path, self.entries())

    def entries(self) -> dict[str, Any]:
        """Its JSON values in the order of the fields, without those at their defaults."""
        return {
            field.name: _plain(value)
            for field in fields(self)
            if not _is_default(field, value := getattr(self, field.name))
        }

    def line(self) -> str:
        """It as one line of JSON."""
        return json.dumps(self.entries(), ensure_ascii=False)


@lru_cache
def _adapter(kind: type["Record"]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_default(field: Field[Any], value: object) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


def _plain(value: object) -> object:
    """What JSON takes for a value."""
    if isinstance(value, Record):
        return value.entries()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, KernelName | KernelVersion):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    assert not is_dataclass(value), f"{type(value).__name__} is in a record and is none"
    return value


def _describe(error: ValidationError) -> str:
    """The first field that is wrong, and how."""
    first = error.errors(include_url=False)[0]
    # A key of a mapping that is wrong is named by itself.
    where = names.one_line(".".join(str(part) for part in first["loc"] if part != "[key]"))[: names.MAX_SHOWN]
    if first["type"] == "missing":
        return f"{where}: missing"
    if first["type"] == "json_invalid":
        return f"damaged (no JSON: {first['ctx']['error']})"
    if not where:
        return f"damaged (holds no JSON object: {names.shown(first['input'])})"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    words = first["msg"].removeprefix("Input should be ")
    return f"{where}: {names.shown(first['input'])} is not {_WORDS.get(words, words)}"
