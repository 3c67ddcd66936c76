"""Files by what is in them: where a record says only names and digests, the bytes may lie under any folder."""

from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path

from components.files.digests import file_digest


class FileFinder:
    """Looks through folders for a file of a given sha256; each file is read once at most."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder for folder in folders if folder.is_dir()]
        self._digests: dict[Path, str] = {}

    def find(self, name: str, sha256: str, first: Path | None = None) -> Path | None:
        """A file with these bytes: `first` if it is one, else one of the same name, else one of the same kind.

        A dataset of weights is flat, hence names may differ; what is no weights file for certain is not read.
        """
        return next((path for path in self._candidates(name, first) if self.digest(path) == sha256), None)

    def digest(self, path: Path) -> str:
        """A file's sha256."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]

    def _candidates(self, name: str, first: Path | None) -> Iterator[Path]:
        if first is not None and first.is_file():
            yield first
        last, suffix = Path(name).name, Path(name).suffix
        for pattern in (escape(last), f"*{escape(suffix)}" if suffix else escape(last)):
            for folder in self._folders:
                yield from (path for path in sorted(folder.rglob(pattern)) if path.is_file())
