"""The curves of one training as JSON lines, in step with the resume points."""

import json
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path

from components.files.json_lines import whole_lines


class History:
    """Appends `{"step": …, name: value, …}`; only the main process writes."""

    def __init__(self, path: Path, *, is_writer: bool) -> None:
        self.path = path
        self._file: BufferedWriter | None = None
        if is_writer:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._file is not None:
            self._file.write((json.dumps({"step": step, **metrics}) + "\n").encode())

    def flush(self) -> int:
        """Bytes written so far; a resume point remembers them."""
        if self._file is None:
            return 0
        self._file.flush()
        return self._file.tell()

    def rewind(self, num_bytes: int) -> None:
        """Forget what was written after the resume point that is being continued; a ValueError where that is cut."""
        if self._file is not None:
            if self.flush() < num_bytes:
                raise ValueError(f"{self.path}: cut to {self.flush()} bytes; its resume point was made at {num_bytes}")
            self._file.truncate(num_bytes)
            self._file.seek(num_bytes)

    def restore(self, content: bytes) -> bool:
        """Begin with what a resume point has kept of the curves; whether the file was damaged or missing until now."""
        if self._file is None:
            return False
        is_damaged = self.path.read_bytes()[: len(content)] != content
        if is_damaged:
            self.rewind(0)
            self._file.write(content)
            self._file.flush()
        self.rewind(len(content))
        return is_damaged

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_history(path: Path) -> list[dict[str, float]]:
    """All whole lines; a kill may leave the last one torn. A ValueError names a line that is no entry."""
    entries = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            entries.append(_read_entry(line))
        except (ValueError, RecursionError):
            raise ValueError(f"{path}: line {number} is damaged (no step with its values)") from None
    return entries


def _read_entry(line: str) -> dict[str, float]:
    entry = json.loads(line)
    if not isinstance(entry, dict) or "step" not in entry:
        raise ValueError
    if not all(isinstance(value, int | float) for value in entry.values()):
        raise ValueError
    return entry
