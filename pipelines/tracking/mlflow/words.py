"""Our words in the form MLflow takes them: keys, lengths and tags. Nothing here talks to MLflow."""

import getpass
import os
import posixpath
import re
import sys
from pathlib import Path

PARAM_LENGTH, KEY_LENGTH = 6000, 250


def to_mlflow_key(key: str) -> str:
    """The key in the characters MLflow takes: map@5 becomes map_5."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", key)).lstrip("/.")[:KEY_LENGTH] or "_"


def source_tags() -> dict[str, str]:
    """Who started what, in MLflow's own tags."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return {
        "mlflow.user": user,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": Path(sys.argv[0]).name or "podium",
    }


def is_missing_sqlite(uri: str) -> bool:
    """Whether the URI names a database file that is not there."""
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()


def cut_param(key: str, text: str) -> str:
    """The text within MLflow's limit, saying how much was left out."""
    note = f"... [{len(text)} characters, whole in params/{key}.txt]"
    return text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - len(note)] + note
