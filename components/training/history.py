"""The curves of one training as JSON lines, in step with the resume points."""

import json
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path


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
        """Forget what was written after the resume point that is being continued."""
        if self._file is not None:
            self._file.truncate(num_bytes)
            self._file.seek(num_bytes)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_history(path: Path) -> list[dict[str, float]]:
    """All whole lines; a kill may leave the last one torn."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
