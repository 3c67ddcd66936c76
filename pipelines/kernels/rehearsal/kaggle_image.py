"""An interpreter with the libraries of Kaggle's image, made once: Python 3.12, the versions of constraints-kaggle.txt.

Kaggle's own image needs Docker and tens of gigabytes; for what our kernels do its library versions are what matters.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from components.files.digests import file_digest
from pipelines.errors import PodiumError
from pipelines.workspace import Workspace

PYTHON = "3.12"


def obtain_image_python(workspace: Workspace) -> Path:
    """The image's interpreter below build/images/kaggle, installed where it is missing or has other versions.

    The first time it downloads about 3 GB, for torch's CUDA build, and fills 6 GB. Raises PodiumError without a Python
    3.12, or where pip fails.
    """
    folder = workspace.build / "images" / "kaggle"
    python, mark = folder / ".venv" / "bin" / "python", folder / "installed"
    digest = file_digest(workspace.image_constraints)
    if python.exists() and mark.is_file() and mark.read_text() == digest:
        return python
    mark.unlink(missing_ok=True)
    print(f"installing Kaggle's library versions into {folder}, once; 3 GB to download")
    if not python.exists():
        _run([str(_find_python()), "-m", "venv", str(folder / ".venv")])
    # The file lists everything, so nothing is left to resolve; one library comes as source, and needs setuptools first.
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*install, "--requirement", str(workspace.image_constraints)])
    mark.write_text(digest)
    return python


def _find_python() -> Path:
    for candidate in _candidates():
        probe = [str(candidate), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        result = subprocess.run(probe, capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() == PYTHON:
            return candidate
    raise PodiumError(
        f"no Python {PYTHON} found, which Kaggle's image has: install it (pyenv install {PYTHON}, uv python install "
        f"{PYTHON}, or your system's package) or set PODIUM_PYTHON312 to one"
    )


def _candidates() -> Iterator[Path]:
    if os.environ.get("PODIUM_PYTHON312"):
        yield Path(os.environ["PODIUM_PYTHON312"])
    if found := shutil.which(f"python{PYTHON}"):
        yield Path(found)
    roots = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"]
    roots.append(Path.home() / ".local" / "share" / "uv" / "python")
    for root in roots:
        yield from sorted(root.glob(f"*{PYTHON}*/bin/python{PYTHON}"), reverse=True)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = [line for line in result.stderr.splitlines() if line.strip()][-1:]
        raise PodiumError(
            f"{' '.join(command[:4])} ...: {' '.join(last) or result.returncode}; correct it and try again"
        )
