"""Files that nothing may touch: what a folder holds, to be compared before and after a hostile input was read."""

from contextlib import contextmanager
from pathlib import Path

PRIVATE = b"a private file of this machine\n"


def make_canary(folder: Path) -> Path:
    """A folder outside the checkout with a file and an inner folder."""
    for name in ("secret.txt", "inner/secret.txt", "run.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PRIVATE)
    return folder


def look_at(folder: Path) -> dict[str, object]:
    """Every path below a folder with its kind, time of change and content; links are not followed."""
    state = {}
    for path in [folder, *sorted(folder.rglob("*"))] if folder.exists() else []:
        about = path.lstat()
        if path.is_symlink():
            content: object = path.readlink()
        else:
            content = path.read_bytes() if path.is_file() else None
        state[str(path)] = (about.st_mode, about.st_mtime_ns, content)
    return state


@contextmanager
def untouched(*folders: Path):
    """After the block the folders are as they were, to the times of their files."""
    before = [look_at(folder) for folder in folders]
    yield
    assert [look_at(folder) for folder in folders] == before
