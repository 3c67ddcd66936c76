"""A line of a record that is otherwise here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """`data_sha256.test.csv: recorded 86e1, here 5c2a (/data/test.csv)`."""

    line: str
    recorded: object
    here: object
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.line}: recorded {_short(self.recorded)}, here {_short(self.here)}{place}"


def differences(line: str, recorded: Mapping[str, object], here: Mapping[str, object]) -> list[Difference]:
    """What differs between a mapping of a record and the same one here, in the record's order."""
    return [
        Difference(f"{line}.{key}", value, here.get(key)) for key, value in recorded.items() if here.get(key) != value
    ]


def _short(value: object) -> str:
    """A digest by its beginning, and nothing by its name."""
    if value is None or value == "":
        return "none"
    text = str(value)
    return text[:16] if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else text
