"""Locks between processes, on files that exist only while somebody holds them; needs no tensor library.

The operating system gives a lock up when its process dies, so that none outlives a kill, a crash or a restart of the
machine. A lock file that is found without a lock is a leftover and is taken over.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What flock answers on a file system that has no locks.
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
_held: set[int] = set()


def _close_inherited() -> None:
    """A forked process (a worker that loads data) must not hold its parent's locks beyond the parent's death."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited)


class Unlockable(OSError):
    """The file system has no locks."""


def take_lock(path: Path, *, wait: bool) -> int | None:
    """Lock `path` and return its descriptor, for `release_lock`; None where another holds it and `wait` is False.

    Raises Unlockable on a file system without locks, and OSError where the file cannot be made.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_locked = try_flock(descriptor, wait=wait)
        except BaseException:
            os.close(descriptor)
            raise
        if not is_locked:
            os.close(descriptor)
            return None
        if is_same_file(descriptor, path):
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)  # whoever held it has removed the file meanwhile


def release_lock(path: Path, descriptor: int, *, remove: bool = True) -> None:
    """Give a lock up and remove its file, unless another file has taken the name or the file is to stay."""
    if descriptor not in _held:
        return  # in a forked child it is closed already, and its number may be another file's
    with suppress(OSError):
        if remove and is_same_file(descriptor, path):
            path.unlink(missing_ok=True)
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Within the block no other process is in a block of the same path; without locks nothing is promised."""
    try:
        descriptor = take_lock(path, wait=True)
    except Unlockable:
        path.unlink(missing_ok=True)
        yield
        return
    assert descriptor is not None
    try:
        yield
    finally:
        release_lock(path, descriptor)


def try_flock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; False where another holds it. Raises Unlockable where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise Unlockable(error.errno, os.strerror(error.errno)) from None
        raise
    return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file still bears this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
