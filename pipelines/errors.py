"""The errors a user can cause: one clear line on the screen and exit code 2, never a traceback."""

import errno
import os

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_CURES = {
    **dict.fromkeys(FULL, "free some space"),
    **dict.fromkeys(FORBIDDEN, "permit it, or choose another --root"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
    errno.ENOMEM: "free some memory",
    errno.EIO: "look after the disk",
    errno.ENOENT: "put it back",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EADDRINUSE: "choose another --port",
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY), "move away what is there"),
}
# Libraries' own classes for a file that the machine refused or that is damaged. They are known by name, for who imports
# one of these libraries waits for it.
_FOREIGN = {
    "SafetensorError": "a file of weights is damaged, or the disk refused it",
    "BadZipFile": "an archive is damaged",
    "OperationalError": "the tracking database was refused",
}


class PodiumError(Exception):
    """What is wrong, where (file, key or row), and what would work, in one line."""


class ConfigError(PodiumError):
    """A mistake in an experiment file or an override."""


def explain(error: BaseException, again: str = "run the command again") -> str | None:
    """What the machine refused: the file, the system's words and the cure, in one line; None for a bug in the code."""
    if isinstance(error, OSError):
        return explain_refusal(error, again)
    if isinstance(error, UnicodeDecodeError):
        return f"a file that was read is not UTF-8 ({error}); save it as UTF-8 and {again}"
    if words := _FOREIGN.get(type(error).__name__):
        # An SQL error goes on for lines.
        return f"{words} ({next(iter(str(error).splitlines()), '')}); look at its disk and {again}"
    return None


def explain_refusal(error: OSError, again: str = "run the command again") -> str:
    """The file, what the system says, and the cure for it, which ends with how to go on."""
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    if error.errno is None:
        return f"{place}{' '.join(str(error).split()) or type(error).__name__}; {again}"
    # The words of libraries that keep the number, as pyarrow does, are several sentences.
    words = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    cure = _CURES.get(error.errno)
    return f"{place}{words}; {cure} and {again}" if cure else f"{place}{words}; {again}"
