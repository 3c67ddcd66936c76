"""Files and folders that are either whole or absent, and JSON written so; needs no tensor library.

Written under a temporary name of its own, flushed to the disk and renamed, so that a process killed at any moment
leaves the previous state readable, and several that write the same name at once do not meet. What a kill leaves under a
temporary name is removed by the next one that writes in the same folder.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from components.files.locks import is_same_file, try_flock

PARTIAL = ".partial"
_TOKEN_BYTES = 8
_LEFTOVER = re.compile(rf".+\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}" + re.escape(PARTIAL))


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `folder`; it takes the name `folder` only if the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(folder, is_folder=True) as partial:
        try:
            yield partial
            for path in partial.rglob("*"):
                flush_to_disk(path)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
            flush_to_disk(folder.parent)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError):
                raise _refused(error, folder, partial) from error
            raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, which replaces `path` only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(path, is_folder=False) as partial:
        try:
            yield partial
            flush_to_disk(partial)
            partial.replace(path)
            flush_to_disk(path.parent)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _refused(error, path, partial) from error
            raise


def _refused(error: OSError | SafetensorError, target: Path, partial: Path) -> OSError:
    """The refusal of a disk with the name of what was being written; an error of another kind is left as it is."""
    if isinstance(error, OSError) and type(error) not in (OSError, PermissionError):
        return error  # of a connection, or of a file that is not there
    if isinstance(error, OSError) and error.errno is not None:
        named = error.filename
        is_other = named is not None and not str(named).startswith(str(partial))
        return error if is_other else OSError(error.errno, os.strerror(error.errno), str(target))
    # safetensors and numpy report it in words of their own.
    is_full = "No space left" in str(error) or shutil.disk_usage(target.parent).free == 0
    reason = errno.EFBIG if "File too large" in str(error) else errno.ENOSPC if is_full else errno.EIO
    return OSError(reason, os.strerror(reason), str(target))


@contextmanager
def _claimed(target: Path, *, is_folder: bool) -> Iterator[Path]:
    """A new, empty sibling under a name that no other process or thread uses, locked as long as its writer lives."""
    remove_leftovers(target.parent, target.name)
    while True:
        partial = target.with_name(f"{target.name}.{secrets.token_hex(_TOKEN_BYTES)}{PARTIAL}")
        if is_folder:
            partial.mkdir()
            try:
                descriptor = os.open(partial, os.O_RDONLY)
            except FileNotFoundError:
                continue  # taken for a leftover
        else:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            # Without locks the name alone keeps writers apart, and a leftover stays.
            with suppress(OSError):
                try_flock(descriptor, wait=True)
            # One that looks for leftovers may have come between the two calls and have removed it.
            if is_same_file(descriptor, partial):
                yield partial
                return
        finally:
            os.close(descriptor)


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `place`, which is gone after the block."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(place, is_folder=True) as partial:
        try:
            yield partial
        except OSError as error:
            raise _refused(error, place.parent, partial) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path, *former: str) -> None:
    """Remove what writers in `folder` left that a kill has ended: nobody holds its lock any more.

    `former` are names for which an older version left a `.partial` without a token.
    """
    if not folder.is_dir():
        return
    names = [entry.name for entry in os.scandir(folder) if _LEFTOVER.fullmatch(entry.name)]
    names += [name + PARTIAL for name in former]
    for leftover in (folder / name for name in names):
        # It may be another's to remove, or gone by now.
        with suppress(OSError):
            _remove_unless_held(leftover)


def _remove_unless_held(leftover: Path) -> None:
    descriptor = os.open(leftover, os.O_RDONLY)
    try:
        if not try_flock(descriptor, wait=False):
            return
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, in UTF-8 and with the line ends that it has."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically; floats keep every bit."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    """Read a JSON file, or raise a ValueError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error})") from error


def flush_to_disk(path: Path) -> None:
    """Leave nothing of a file, or of a folder's names, in the system's cache alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
