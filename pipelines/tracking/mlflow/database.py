"""MLflow's sqlite database: made once, by one process, and whole before anybody opens it; and waiting for its lock.

MLflow is imported where the database is made and not before.
"""

import logging
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from components.files.atomic import flush_to_disk
from components.files.locks import one_at_a_time
from pipelines.errors import PodiumError
from pipelines.workspace import Workspace

T = TypeVar("T")
# Eight trainings that start at once hold each other up for seconds.
_TRIES = 12
_CURE = "move the checkout, set MLFLOW_TRACKING_URI, or track into files with tracking.name=jsonl"


def tracking_uri(workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, or the workspace's own database under its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or own_uri(workspace)


def own_uri(workspace: Workspace) -> str:
    """The workspace's own database."""
    return f"sqlite:///{workspace.mlflow_db.absolute()}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite URI; None for any other store."""
    name = uri.removeprefix("sqlite:///").split("?")[0]
    return Path(name) if uri.startswith("sqlite:///") and name not in ("", ":memory:") else None


def prepare_database(workspace: Workspace) -> Path:
    """Create the workspace's database, which takes MLflow 3-7 s, unless it exists; once, in `make setup`.

    It appears under its name only when complete, so that an interrupted set-up leaves nothing half-made. Of several
    processes one makes it and the others wait. Raises PodiumError for a path that MLflow cannot open.
    """
    target = workspace.mlflow_db.absolute()
    check_place(own_uri(workspace), is_query_meant=False)
    _prepare(target)
    return target


def prepare_uri(uri: str, workspace: Workspace) -> None:
    """Make the database of a sqlite URI unless it exists, and see that it is one; nothing for any other store.

    Raises PodiumError at once, where MLflow would try for minutes.
    """
    target = sqlite_file(uri)
    if target is None:
        return
    check_place(uri, is_query_meant=uri != own_uri(workspace))
    _prepare(target.absolute())
    _check_readable(target)


def check_place(uri: str, *, is_query_meant: bool) -> None:
    """PodiumError for a path in which MLflow takes a character for something else and then looks elsewhere."""
    path = uri.removeprefix("sqlite:///")
    if "?" in path and not is_query_meant:
        raise PodiumError(f"{path}: MLflow takes the ? in this path for the end of its database's name; {_CURE}")
    name = path.split("?")[0]
    if unquote(name) != name:
        raise PodiumError(f"{name}: MLflow takes the % in this path for a code and looks in {unquote(name)}; {_CURE}")


def patiently(function: Callable[[], T]) -> T:
    """The answer of a call that another process may hold up: "database is locked" is tried again for some seconds."""
    for attempt in range(_TRIES - 1):
        try:
            return function()
        except Exception as error:
            if "database is locked" not in str(error):
                raise
        # Random, for two processes that met at the lock must not meet again.
        time.sleep(random.uniform(0.05, 0.2) * min(2**attempt, 16))
    return function()


def _prepare(target: Path) -> None:
    if _is_there(target):
        with suppress(OSError):
            _sweep(target)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(_lock(target)):
            if not _is_there(target):
                _make(target)
    except OSError as error:
        raise PodiumError(f"{error.filename or target}: {error.strerror or error}; {_CURE}") from error


def _sweep(target: Path) -> None:
    """Remove what a kill left that came when the database was in its place already."""
    if _lock(target).exists() or _unfinished(target).exists():
        with one_at_a_time(_lock(target)):
            shutil.rmtree(_unfinished(target), ignore_errors=True)


def _lock(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.preparing")


def _is_there(target: Path) -> bool:
    """An empty file is what a kill may leave, and no database yet."""
    return target.is_dir() or (target.exists() and target.stat().st_size > 0)


def _make(target: Path) -> None:
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    folder = _unfinished(target)
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left; nobody else is here
    folder.mkdir()
    try:
        unfinished, whole = folder / "unfinished.db", folder / target.name
        MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
        # A copy, for MLflow keeps connections to the first file; and all in one file, without a journal beside it.
        with closing(sqlite3.connect(unfinished)) as source, closing(sqlite3.connect(whole)) as copy:
            source.backup(copy)
        flush_to_disk(whole)
        _move(whole, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(whole: Path, target: Path) -> None:
    """Under its name, and never over a database that another process made where there are no locks."""
    if target.exists():
        whole.replace(target)  # an empty file
        return
    try:
        os.link(whole, target)
    except FileExistsError:
        return
    except OSError:
        whole.replace(target)


def _check_readable(target: Path) -> None:
    """PodiumError for what is no database; one that is locked is."""
    try:
        with closing(sqlite3.connect(target, timeout=1.0)) as database, suppress(sqlite3.OperationalError):
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise PodiumError(f"MLflow at sqlite:///{target} cannot be used: {error}; {_CURE}") from error
