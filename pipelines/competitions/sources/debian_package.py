"""Data that a Debian package carries: the installed folder, or the package fetched and unpacked without root."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import PodiumError

SECONDS = 300


@contextmanager
def unpacked(package: str, folder: Path, *, otherwise: str) -> Iterator[Path]:
    """The package's `folder` (absolute), within the block: the installed one, or one that is gone afterwards.

    Raises PodiumError, which says to do `otherwise`, where the package is not installed and cannot be fetched.
    """
    if folder.is_dir():
        yield folder
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PodiumError(f"{folder}: missing, and this system has no apt to fetch {package} with; {otherwise}")
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        place = Path(name)
        _run(["apt-get", "download", package], place, package, otherwise)
        files = sorted(place.glob("*.deb"))
        if not files:
            raise PodiumError(f"apt-get download {package}: left no file; {otherwise}")
        _run(["dpkg-deb", "--extract", str(files[0]), str(place / "root")], place, package, otherwise)
        found = place / "root" / folder.relative_to("/")
        if not found.is_dir():
            raise PodiumError(f"{files[0].name}: holds no {folder}; {otherwise}")
        yield found


def _run(command: list[str], place: Path, package: str, otherwise: str) -> None:
    try:
        subprocess.run(command, cwd=place, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        reason = said[-1] if said else f"exit {error.returncode}"
        raise PodiumError(f"{' '.join(command[:2])} of {package} failed ({reason}); {otherwise}") from None
    except subprocess.TimeoutExpired:
        raise PodiumError(f"{' '.join(command[:2])} of {package}: nothing after {SECONDS} s; {otherwise}") from None
