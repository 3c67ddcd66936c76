"""The table of competitions: the files of `catalogue/`, and a competition by its name."""

import importlib
import pkgutil
import re
from pathlib import Path

import pipelines.competitions
from pipelines.competitions import catalogue
from pipelines.competitions.competition import Competition
from pipelines.competitions.tables import did_you_mean
from pipelines.errors import PodiumError


def competition_names() -> list[str]:
    """The files of the catalogue that hold a competition, sorted."""
    return sorted(_competition_files())


def competition_file(name: str) -> Path:
    """The file of a competition, or the place in the catalogue where one of this name is to be written."""
    return _competition_files().get(name, Path(catalogue.__path__[0]) / f"{name}.py")


def load_competition(name: str) -> Competition:
    """The competition of a file in the catalogue. Raises `PodiumError` for an unknown name or a file that fails."""
    files = _competition_files()
    if name not in files:
        hint = did_you_mean(name.replace("-", "_"), sorted(files))
        raise PodiumError(f"{name}: no such competition{hint}; there are {', '.join(sorted(files))}")
    package = catalogue if files[name].parent in map(Path, catalogue.__path__) else pipelines.competitions
    file = f"{package.__name__.replace('.', '/')}/{name}.py"
    try:
        module = importlib.import_module(f"{package.__name__}.{name}")
    except PodiumError:
        raise
    except Exception as error:  # a file of the user's may fail in any way; it is data here
        raise PodiumError(f"{file}: {type(error).__name__}: {error}") from error
    competition = module.COMPETITION
    if not isinstance(competition, Competition) or competition.name != name:
        raise PodiumError(f'{file}: COMPETITION must be a Competition with name="{name}"')
    return competition


def _competition_files() -> dict[str, Path]:
    """Name -> file. A competition beside this file, where `podium new` once wrote them, counts as well.

    A file of the catalogue goes before one of the same name there.
    """
    found = {}
    for package in (pipelines.competitions, catalogue):
        for module in pkgutil.iter_modules(package.__path__):
            path = Path(getattr(module.module_finder, "path", "")) / f"{module.name}.py"
            if path.is_file() and re.search(r"^COMPETITION\b", path.read_text(encoding="utf-8"), re.MULTILINE):
                found[module.name] = path
    return found
