"""One process at a time writes a run: a lock beside its directory that says who holds it.

The file is `runs/<experiment>/.<run>.lock`. It lies beside the run and not in it, so that nothing that copies, packs or
replaces a run takes it along. It is removed at the end; the one that a kill leaves behind holds nothing back, for the
operating system gave its lock up.
"""

import getpass
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from components.files.locks import Unlockable, release_lock, take_lock, try_flock
from pipelines.redaction import without_secrets
from pipelines.errors import PodiumError

# How long somebody who only looks may hold the lock.
_LOOKS, _LOOK_SECONDS = 20, 0.05
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
# What only training leaves: a run that has any of it and lost its run.json is somebody's work.
_TRAINED = ("*/checkpoints", "*/resume", "*/result.json", "metrics.json", "submission.csv")


@contextmanager
def locked_run(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block no other process writes this run.

    Raises PodiumError naming who does already. Where the file system has no locks `say` is told so, and the block runs.
    """
    path = _lock_file(run)
    descriptor = _take(run, path, say)
    if descriptor is None:
        yield
        return
    try:
        yield
    finally:
        release_lock(path, descriptor)


@contextmanager
def beginning(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make the folder of a new run, which is locked within the block and gone where the block fails.

    What kills have left of others goes first.
    """
    for folder in remove_abandoned(run.parent.parent):
        say(f"{folder}: removed; a kill came before it was a run")
    # Where there are no locks, who writes the run is told so.
    with locked_run(run, lambda _: None):
        run.mkdir(parents=True)
        try:
            yield
        except BaseException:
            shutil.rmtree(run, ignore_errors=True)
            raise


def remove_abandoned(runs: Path) -> list[Path]:
    """Remove the folders without a run.json whose maker was killed before training; return them, sorted."""
    # A kill between the lock and the folder leaves the lock alone.
    locks = (path.with_name(path.name[1:-5]) for path in runs.glob("*/.*.lock"))
    abandoned = []
    for folder in sorted({path for path in (*runs.glob("*/*"), *locks) if _RUN.fullmatch(path.name)}):
        if not (folder / "run.json").exists():
            # Others may remove it at the same time, and not every file system has locks.
            with suppress(OSError):
                abandoned += _remove_abandoned(folder)
    return abandoned


def _remove_abandoned(folder: Path) -> list[Path]:
    path = _lock_file(folder)
    descriptor = take_lock(path, wait=False)
    if descriptor is None:
        return []
    try:
        # Only now does nobody make it; it may have become a run meanwhile.
        is_work = (folder / "run.json").exists() or any(any(folder.glob(pattern)) for pattern in _TRAINED)
        if is_work or folder.is_symlink() or not folder.is_dir():
            return []
        shutil.rmtree(folder)
        return [folder]
    finally:
        release_lock(path, descriptor)


def check_unlocked(run: Path) -> None:
    """PodiumError where another process is writing this run now."""
    holder = find_holder(run)
    if holder is not None:
        raise PodiumError(_refusal(run, holder))


def find_holder(run: Path) -> str | None:
    """Who is writing this run, in words; None where nobody is. Changes nothing on the disk."""
    path = _lock_file(run)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if try_flock(descriptor, wait=False) else _read_holder(path)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _lock_file(run: Path) -> Path:
    run = run.resolve()
    return run.with_name(f".{run.name}.lock")


def _take(run: Path, path: Path, say: Callable[[str], None]) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_LOOKS):
            descriptor = take_lock(path, wait=False)
            if descriptor is not None:
                # Who holds it is for people to read; the lock holds on a full disk, too.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, json.dumps(_describe_self(), ensure_ascii=False).encode())
                return descriptor
            time.sleep(_LOOK_SECONDS)
    except Unlockable:
        with suppress(OSError):
            path.unlink()
        say(f"{path.parent}: the file system has no locks; see to it that only one process writes {run.name}")
        return None
    raise PodiumError(_refusal(run, _read_holder(path)))


def _describe_self() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": without_secrets(command),
        "host": platform.node(),
        "pid": os.getpid(),
        "user": user,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _read_holder(path: Path) -> str:
    try:
        who = dict(json.loads(path.read_text(encoding="utf-8")))
        since = str(who["since"])[:19].replace("T", " ")
        return f"`{who['command']}` (process {who['pid']} of {who['user']} on {who['host']}) since {since} UTC"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


def _refusal(run: Path, holder: str) -> str:
    return f"{run}: is being written by {holder}; wait until it ends, or stop it with Ctrl-C and then try again"
