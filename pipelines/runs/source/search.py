"""Which commit a source digest is: a kernel knows only the digest of what it was packed with."""

import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.runs.source.state import read_source_state

MAX_COMMITS = 300  # each costs about 20 ms
_PACKAGES = ("components", "pipelines")


@dataclass(frozen=True)
class KnownSource:
    """A commit, and the uncommitted changes on it."""

    commit: str
    diff: str


def find_source(repository: Path, sha256: str) -> KnownSource | None:
    """The state of the running checkout if it has this digest, else the newest such commit that HEAD descends from."""
    state = read_source_state()
    if state.sha256 == sha256 and state.commit is not None and state.problem is None:
        return KnownSource(state.commit, state.diff)
    # A commit that leaves the packages alone has the source of the one before.
    log = _git(repository, "log", f"--max-count={MAX_COMMITS}", "--format=%H", "--", *_PACKAGES)
    for commit in (log or b"").decode().split():
        if _hash_commit(repository, commit) == sha256:
            return KnownSource(commit, "")
    return None


def _hash_commit(repository: Path, commit: str) -> str | None:
    """As `hash_source` of a checkout at that commit."""
    content = _git(repository, "archive", "--format=tar", commit, "--", *_PACKAGES)
    if content is None:
        return None
    digest = hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        modules = [member for member in archive.getmembers() if member.isfile() and member.name.endswith(".py")]
        # One package after the other, each in the order of its paths.
        for member in sorted(modules, key=lambda member: _place(member.name)):
            file = archive.extractfile(member)
            assert file is not None
            digest.update(member.name.encode() + b"\0" + file.read() + b"\0")
    return digest.hexdigest()


def _place(name: str) -> tuple[str, str]:
    package, *inside = PurePosixPath(name).parts
    return package, "/".join(inside)


def _git(repository: Path, *arguments: str) -> bytes | None:
    try:
        result = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True)
    except OSError:
        return None
    return result.stdout if result.returncode == 0 else None
