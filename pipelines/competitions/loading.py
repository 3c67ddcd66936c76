"""The table of competitions: the files of `catalogue/`, and a competition by its name."""

import importlib
import pkgutil
import re
from pathlib import Path

import pipelines.competitions
from components.nearest import did_you_mean
from pipelines.competitions import catalogue
from pipelines.competitions.competition import Competition
from pipelines.errors import PodiumError


def competition_names() -> list[str]:
    """The files of the catalogue that hold a competition, sorted."""
    return sorted(_find_modules())


def competition_file(name: str) -> Path:
    """The file of a competition, or the place in the catalogue where one of this name is to be written."""
    _, path = _find_modules().get(name, ("", Path(catalogue.__path__[0]) / f"{name}.py"))
    return path


def load_competition(name: str) -> Competition:
    """The competition of a file in the catalogue. Raises `PodiumError` for an unknown name or a file that fails."""
    modules = _find_modules()
    if name not in modules:
        hint = did_you_mean(name.replace("-", "_"), sorted(modules))
        raise PodiumError(f"{name}: no such competition{hint}; there are {', '.join(sorted(modules))}")
    dotted, _ = modules[name]
    file = f"{dotted.replace('.', '/')}.py"
    try:
        module = importlib.import_module(dotted)
    except PodiumError:
        raise
    except Exception as error:  # a file of the user's may fail in any way; it is data here
        raise PodiumError(f"{file}: {type(error).__name__}: {error}") from error
    competition = module.COMPETITION
    if not isinstance(competition, Competition) or competition.name != name:
        raise PodiumError(f'{file}: COMPETITION must be a Competition with name="{name}"')
    return competition


def _find_modules() -> dict[str, tuple[str, Path]]:
    """Name -> module and file. A competition beside this file, where `podium new` once wrote them, counts as well.

    A file of the catalogue goes before one of the same name there.
    """
    found = {}
    for package in (pipelines.competitions, catalogue):
        for module in pkgutil.iter_modules(package.__path__):
            path = Path(getattr(module.module_finder, "path", "")) / f"{module.name}.py"
            if path.is_file() and re.search(r"^COMPETITION\b", path.read_text(encoding="utf-8"), re.MULTILINE):
                found[module.name] = f"{package.__name__}.{module.name}", path
    return found
