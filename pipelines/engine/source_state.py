"""Which source produced a run: commit, uncommitted changes, and a digest of the files that were imported."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import components
import pipelines


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
    diff = _git(root, "diff", "HEAD", "--no-ext-diff") or ""
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "--", "*.py", "*.yaml") or ""
    listing = "".join(f"# untracked: {name}\n" for name in untracked.splitlines())
    branch = (_git(root, "rev-parse", "--abbrev-ref", "HEAD") or "").strip()
    return SourceState(commit.strip(), branch or None, listing + diff, hash_source())


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


def _git(root: Path, *arguments: str) -> str | None:
    """The output of a git command in `root`; None without git or outside a checkout."""
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
