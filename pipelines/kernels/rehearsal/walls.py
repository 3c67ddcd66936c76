"""What keeps a rehearsed kernel from the machine: Linux namespaces through util-linux's `unshare`, or nothing.

The kernel sees a root of its own: the system's folders and the interpreter's, read-only, /kaggle, an empty /tmp; no
network and none of this machine's other processes. The repository is not hidden but absent.
"""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SYSTEM_FOLDERS = ("bin", "sbin", "usr", "lib", "lib32", "lib64", "libx32", "etc", "opt", "sys")
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child")
PLAIN = (
    "the network is not cut",
    "inputs are not read-only",
    "the rest of the disk can be read",
    "there is no /kaggle (PODIUM_KAGGLE names its place)",
)


@dataclass(frozen=True)
class Place:
    """What a kernel is shown: inputs by mount, its working folder, the folder of its code, and its interpreter."""

    scratch: Path
    mounts: Mapping[str, Path]
    working: Path
    source: Path
    python: Path


@dataclass(frozen=True)
class Walls:
    """`command` goes before the kernel's own, which starts in `folder` and finds its files under `root`."""

    command: Sequence[str]
    root: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def close_walls(place: Place) -> Walls:
    """Namespaces where the system permits them; else the same layout in a temporary folder."""
    options = _permitted()
    return _plain(place) if options is None else _namespaces(place, options)


@cache
def _permitted() -> tuple[str, ...] | None:
    """The options with which `unshare` works here: as root, or as a user who is root within; None where it does not."""
    if shutil.which("unshare") is None:
        return None
    for options in ((), ("--user", "--map-root-user")):
        with tempfile.TemporaryDirectory(prefix="podium-probe-") as name:
            folders = [Path(name) / part for part in ("input", "working", "src")]
            for folder in folders:
                folder.mkdir()
            given, working, source = folders
            walls = _namespaces(
                Place(Path(name), {"datasets/a/b": given}, working, source, Path(sys.executable)), options
            )
            # The whole of it, for what a system refuses may be any one of the mounts.
            command = [*walls.command, sys.executable, "-I", "-c", "pass"]
            if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0:
                return options
    return None


def _namespaces(place: Place, options: Sequence[str]) -> Walls:
    root = place.scratch / "root"
    root.mkdir()
    lines = [f"mount -t tmpfs -o mode=755 tmpfs {_in(root, '/')}", *_system_lines(root)]
    # Before the interpreter's folders, which may lie in it: a checkout below /tmp is as good as any.
    lines += [f"mkdir -p {_in(root, '/tmp')}", f"mount -t tmpfs tmpfs {_in(root, '/tmp')}"]
    for folder in _python_folders(place.python):
        lines += _bind(root, folder, folder, is_writable=False)
    for mount, folder in place.mounts.items():
        lines += _bind(root, folder, Path("/kaggle/input") / mount, is_writable=False)
    lines += _bind(root, place.working, Path("/kaggle/working"), is_writable=True)
    lines += _bind(root, place.source, Path("/kaggle/src"), is_writable=True)
    # The inputs' parents are on the new root itself: from here on nothing but /tmp, working and src takes a file.
    lines += [f"mkdir -p {_in(root, '/kaggle/input')}"]
    lines += [f"mount -o remount,bind,ro {_in(root, '/')}"]
    enter = 'cd /kaggle/working && exec "$@"'
    lines += [f'exec chroot {_in(root, "/")} /bin/sh -c {shlex.quote(enter)} sh "$@"']
    script = "\n".join(["set -e", "PATH=$PATH:/usr/sbin:/sbin", *lines])
    # Whoever is killed while a kernel runs takes it along.
    leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*leash, "unshare", *options, *NAMESPACES, "/bin/sh", "-c", script, "sh"]
    return Walls(command, Path("/kaggle"), Path("/"))


def _system_lines(root: Path) -> list[str]:
    """The system's folders read-only, or the links that stand for them, and fresh /proc, /dev as it is."""
    lines = []
    for name in SYSTEM_FOLDERS:
        folder = Path("/") / name
        if folder.is_symlink():
            lines.append(f"ln -s {shlex.quote(str(folder.readlink()))} {_in(root, folder)}")
        elif folder.is_dir():
            lines += _bind(root, folder, folder, is_writable=False)
    lines += [f"mkdir -p {_in(root, '/proc')}", f"mount -t proc proc {_in(root, '/proc')}"]
    return [*lines, *_bind(root, Path("/dev"), Path("/dev"), is_writable=True)]


def _bind(root: Path, source: Path, target: Path, *, is_writable: bool) -> list[str]:
    place = _in(root, target)
    lines = [f"mkdir -p {place}", f"mount --rbind {shlex.quote(str(source))} {place}"]
    return lines if is_writable else [*lines, f"mount -o remount,bind,ro {place}"]


def _in(root: Path, path: str | Path) -> str:
    return shlex.quote(str(root / str(path).lstrip("/")))


def _python_folders(python: Path) -> list[Path]:
    """The folders an interpreter needs; one that holds this project's packages, as a checkout on its path, is none."""
    program = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
    result = subprocess.run([str(python), "-I", "-c", program], capture_output=True, text=True, check=True)
    given = [python.absolute().parent.parent, *map(Path, json.loads(result.stdout))]
    folders = {folder for each in given for folder in (each, each.resolve()) if folder.is_dir()}
    system = {Path("/") / name for name in SYSTEM_FOLDERS}
    own = [folder for folder in folders if not (folder / "pipelines" / "cli.py").is_file()]
    return sorted(f for f in own if not any(parent in system or parent in own for parent in f.parents))


def _plain(place: Place) -> Walls:
    """The layout by links, under a temporary folder."""
    root = place.scratch / "kaggle"
    links = {root / "input" / mount: folder for mount, folder in place.mounts.items()}
    for link, folder in (links | {root / "working": place.working, root / "src": place.source}).items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    (root / "input").mkdir(exist_ok=True)
    return Walls([], root, place.working, {"PODIUM_KAGGLE": str(root)}, PLAIN)
