"""Commands in a forked process whose disk takes nothing, without mounting anything: as any user, in any container."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys

from pipelines.cli import main

FORK = multiprocessing.get_context("fork")
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER let root write where no mode permits it.
OVERRIDES = 0b1110
VERSION = 0x20080522


def fill_disk():
    """A file may be made and not a byte be written to it, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def obey_modes():
    """Root becomes a user whom the modes of its own files bind; any other user is that already."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~OVERRIDES & 0xFFFFFFFF
    assert libc.capset(header, sets) == 0


def podium(root, words, *, before):
    """Exit code and what was said on stderr, from `before()` on."""
    said, end = os.pipe()
    process = FORK.Process(target=_run, args=(root, words, before, end))
    process.start()
    os.close(end)
    with os.fdopen(said, encoding="utf-8") as stream:
        text = stream.read()
    process.join(timeout=300)
    return process.exitcode, text


def _run(root, words, before, end):
    os.dup2(end, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    before()
    main(["--root", str(root), *words])


def forbid_writing(root):
    """Take every right to write below a folder; returns what gives them back."""
    modes = {path: path.stat().st_mode for path in (root, *root.rglob("*")) if not path.is_symlink()}

    def permit():
        for path, mode in modes.items():
            path.chmod(mode)

    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    return permit
