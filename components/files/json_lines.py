"""Files of JSON lines that several processes append to: a line is written whole or not at all; needs no tensor library.

A kill or a full disk can tear the last line. Readers pass over it, and the next append mends the file.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def append_line(path: Path, text: str) -> None:
    """Add one line and flush it to the disk. Raises OSError, with nothing added, where the disk does not take it."""
    with locked_lines(path) as append:
        append(text)


@contextmanager
def locked_lines(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield `append_line` for this file; within the block no other process appends to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        # Not every file system has locks; an append of one line is still one write there.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield lambda text: _append(descriptor, path, text)
    finally:
        os.close(descriptor)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, without a last one that a kill has torn; none where there is no file."""
    if not path.is_file():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    texts = [line.decode("utf-8", errors="replace") for line in lines]
    return [*texts, last.decode("utf-8", errors="replace")] if _is_whole(last) else texts


def _append(descriptor: int, path: Path, text: str) -> None:
    length = _mend(descriptor)
    content = memoryview(text.encode("utf-8") + b"\n")
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, length)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def _mend(descriptor: int) -> int:
    """Complete or cut off a last line without a line break; return the length of the file then."""
    length = os.fstat(descriptor).st_size
    content = os.pread(descriptor, length, 0)
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return length
    if _is_whole(tail):
        os.write(descriptor, b"\n")
        return length + 1
    os.ftruncate(descriptor, length - len(tail))
    return length - len(tail)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
