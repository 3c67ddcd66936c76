"""Which source produced a run: commit, uncommitted changes, and a digest of the files that were imported."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import components
import pipelines

# Whatever the user's own settings make of a diff, this form can be applied.
_PATCH = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--src-prefix=a/", "--dst-prefix=b/")


@dataclass(frozen=True)
class SourceState:
    """`commit` and `branch` are None outside a git checkout, as within a kernel; `sha256` is always known."""

    commit: str | None
    branch: str | None
    diff: str
    sha256: str

    @property
    def is_dirty(self) -> bool:
        return bool(self.diff)


def read_source_state() -> SourceState:
    """The state of the checkout that the running code was imported from."""
    root = _package_folder(pipelines).parent
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return SourceState(None, None, "", hash_source())
    branch = (_git(root, "rev-parse", "--abbrev-ref", "HEAD") or "").strip()
    return SourceState(commit.strip(), branch or None, _read_diff(root), hash_source())


def _read_diff(root: Path) -> str:
    """A patch that `git apply` takes, of what differs from the commit, with the modules and experiments git knows not.

    The ledger is left out: it grows with every submission and changes no run.
    """
    diff = _git(root, *_PATCH, "HEAD", "--", ".", ":(exclude)ledger") or ""
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml") or ""
    for name in filter(None, names.split("\0")):
        diff += _git(root, *_PATCH, "--no-index", "--", os.devnull, name, success=1) or ""
    return diff


def hash_source() -> str:
    """SHA-256 over names and contents of all modules of components and pipelines, in sorted order."""
    digest = hashlib.sha256()
    for package in (components, pipelines):
        folder = _package_folder(package)
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _package_folder(package: object) -> Path:
    file = getattr(package, "__file__", None)
    assert file is not None
    return Path(file).parent


def _git(root: Path, *arguments: str, success: int = 0) -> str | None:
    """The output of a git command in `root`; None without git or outside a checkout. `diff --no-index` ends with 1."""
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Decoded here, for `text=True` would make one line end of all kinds.
    return result.stdout.decode("utf-8", errors="replace") if result.returncode == success else None
