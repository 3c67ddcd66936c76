"""Installed packages that carry data or weights: where their files lie, without running their code."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pipelines.errors import PodiumError


def find_package(package: str) -> tuple[Path, str]:
    """The folder of an installed data package, whose code is not run, and its "name version"."""
    folder = find_package_folder(package)
    # A package may be distributed under another name.
    distribution = metadata.packages_distributions().get(package, [package])[0]
    return folder, f"{distribution} {metadata.version(distribution)}"


def find_package_folder(package: str, *, cure: str = 'pip install -e ".[examples]"') -> Path:
    """The folder of an installed data package, whose code is not run; its version would take seconds to find."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PodiumError(f"package {package}, which holds the data, is missing: {cure}")
    return Path(spec.submodule_search_locations[0])
