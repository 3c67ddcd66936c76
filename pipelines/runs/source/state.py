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

_TIMEOUT_SECONDS = 60


class _GitError(Exception):
    """Git is missing, refuses, or takes too long; the message is one line."""


@dataclass(frozen=True)
class SourceState:
    """`commit` and `branch` are None outside a git checkout, as within a kernel; `sha256` is always known.

    `problem` is what git said where there is a checkout that it could not read.
    """

    commit: str | None
    branch: str | None
    diff: str
    sha256: str
    problem: str | None = None

    @property
    def is_dirty(self) -> bool | None:
        """Whether there were changes since the commit; None where nobody can tell."""
        return None if self.commit is None or self.problem is not None else bool(self.diff)


def read_source_state() -> SourceState:
    """The state of the checkout that the running code was imported from."""
    root = _package_folder(pipelines).parent
    commit = branch = problem = None
    diff = ""
    if (root / ".git").exists():
        try:
            commit = _git(root, "rev-parse", "HEAD").strip()
            branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() or None
            diff = _read_diff(root)
        except _GitError as error:
            problem = str(error)
    return SourceState(commit, branch, diff, hash_source(), problem)


def _read_diff(root: Path) -> str:
    """A patch that `git apply` takes, of what differs from the commit, with the modules and experiments git knows not.

    The ledger is left out: it grows with every submission and changes no run.
    """
    diff = _git(root, *_PATCH, "HEAD", "--", ".", ":(exclude)ledger")
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml")
    for name in filter(None, names.split("\0")):
        # Ends with 1 where the two differ
        diff += _git(root, *_PATCH, "--no-index", "--", os.devnull, name, success=(0, 1))
    return diff


def hash_source(root: Path | None = None) -> str:
    """SHA-256 over names and contents of all modules of components and pipelines, in sorted order.

    Of the running code, or of the checkout at `root`, whatever commit that is at.
    """
    digest = hashlib.sha256()
    for package in (components, pipelines):
        folder = _package_folder(package) if root is None else root / package.__name__
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _package_folder(package: object) -> Path:
    file = getattr(package, "__file__", None)
    assert file is not None
    return Path(file).parent


def _complaint(words: str, command: str, code: int) -> str:
    """Git's first line, and the command that it says would help."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    cures = [line for line in lines if line.startswith("git config ")]
    first = lines[0] if lines else f"git {command} ended with exit code {code}"
    return first + "".join(f"; run {cure}" for cure in cures[:1])


def _git(root: Path, *arguments: str, success: tuple[int, ...] = (0,)) -> str:
    """The output of a git command in `root`.

    Raises:
        _GitError: With git's own first line, where it gives one.
    """
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _GitError(f"git {arguments[0]} took longer than {_TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise _GitError(f"git cannot be started ({error.strerror or error})") from error
    # Decoded here, for `text=True` would make one line end of all kinds.
    if result.returncode not in success:
        raise _GitError(_complaint(result.stderr.decode("utf-8", errors="replace"), arguments[0], result.returncode))
    return result.stdout.decode("utf-8", errors="replace")
