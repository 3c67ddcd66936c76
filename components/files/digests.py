"""Digests that find damage: what was written is held against its SHA-256 before it is used.

A *sealed* JSON object carries the digest of its own other entries. A *sealed* folder holds `digests.json`, a sealed
object that names the digest of every other file in it. Needs no tensor library. A gigabyte takes about a second.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.files.atomic import atomic_folder, read_json, write_json

DIGESTS = "digests.json"
OWN_DIGEST = "own_sha256"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_file(path: Path, digest: object) -> None:
    """ValueError that names the file unless its bytes have this digest."""
    try:
        found = file_digest(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing") from None
    except OSError as error:
        raise ValueError(f"{path}: unreadable ({error.strerror or error})") from error
    if found != digest:
        raise ValueError(f"{path}: damaged or changed (its SHA-256 begins {found[:12]}, it was {str(digest)[:12]})")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a JSON object with the digest of them all; a former digest is replaced."""
    # As they come back from the file: tuples as lists, and every key as text.
    entries: dict[str, Any] = json.loads(json.dumps({key: content[key] for key in content if key != OWN_DIGEST}))
    return entries | {OWN_DIGEST: _digest_entries(entries)}


def check_seal(content: Mapping[str, Any], place: object, *, is_required: bool = False) -> None:
    """ValueError that names `place` unless the entries have the digest they carry; none passes if not required."""
    stated = content.get(OWN_DIGEST)
    if stated is None and not is_required:
        return
    if stated != _digest_entries({key: content[key] for key in content if key != OWN_DIGEST}):
        raise ValueError(f"{place}: damaged or changed by hand (its entries no longer have the digest beside them)")


def read_object(path: Path, *, is_required: bool = False) -> dict[str, Any]:
    """A JSON object whose seal is checked where there is one; a ValueError names a file that is damaged or missing."""
    content = read_unsealed(path)
    check_seal(content, path, is_required=is_required)
    return content


def read_unsealed(path: Path) -> dict[str, Any]:
    """A JSON object without a look at its seal; a ValueError names a file that is damaged or missing."""
    if not path.exists():
        raise ValueError(f"{path}: missing")
    try:
        content = read_json(path)
    except RecursionError:
        raise ValueError(f"{path}: unreadable (nested too deeply)") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged (holds no JSON object)")
    return content


@contextmanager
def sealed_folder(folder: Path) -> Iterator[Path]:
    """As `atomic_folder`; what the block has written is sealed at its end."""
    with atomic_folder(folder) as partial:
        yield partial
        write_digests(partial)


def write_digests(folder: Path) -> None:
    """Name the digest of every file in `folder` in its `digests.json`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / DIGESTS)
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    write_json(folder / DIGESTS, sealed({"files": digests}))


def check_folder(folder: Path) -> None:
    """ValueError that names the first file of a sealed folder that is missing or damaged."""
    digests = read_object(folder / DIGESTS, is_required=True)["files"]
    for name, digest in digests.items():
        check_file(folder / name, digest)


def _digest_entries(entries: Mapping[str, Any]) -> str:
    text = json.dumps(entries, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
