"""Names, places, digests and folders that come from files of others: held here before any of them becomes a path.

Each check returns what it was given and raises a ValueError that begins with the value; whoever calls it puts file and
entry in front. The checks look at forms only and leave the disk alone, but for the two that say so.
"""

import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

MAX_NAME_BYTES = 255
MAX_DEPTH = 32
MAX_SHOWN = 200
# pip takes a requirement of such a name for a file of the current folder.
ARCHIVES = (".whl", ".zip", ".tar", ".tgz", ".tbz", ".txz", ".tlz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzma")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def name(value: object) -> str:
    """One word that names a file or a folder: it is not hidden, is no option, and leads nowhere else."""
    text = _text(value)
    if not text or text[0] in ".-" or "/" in text:
        raise ValueError(
            f"{shown(text)} is no name; needs one word without / that begins with neither a dot nor a hyphen"
        )
    return _short_enough(text)


def place(value: object) -> str:
    """A relative path that stays below the folder where it begins, as `fold0/result.json` does."""
    text = _text(value)
    parts = text.split("/")
    if not text or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{shown(text)} does not stay in its folder; needs a relative path without . and ..")
    for part in parts:
        _short_enough(part)
    return text


def experiment(value: object) -> str:
    """A name, or several with / between them, as an experiment in a folder has it."""
    for part in place(value).split("/"):
        name(part)
    return str(value)


def data_file(value: object) -> str:
    """A file of a competition's data, or a folder of images, which ends in "/"; "./" are images beside the tables."""
    if value != "./":
        place(value.removesuffix("/") if isinstance(value, str) else value)
    return str(value)


def moment(value: object) -> str:
    """A time in ISO 8601 that says its zone, as 2026-11-21T12:00:00+00:00."""
    try:
        is_sound = isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError(f"{shown(value)} is no time with a zone; needs one such as 2026-11-21T12:00:00+00:00")
    return str(value)


def digest(value: object) -> str:
    """A sha256 as this project writes it."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{shown(value)} is no sha256; needs 64 digits of 0-9 and a-f")
    return value


def commit(value: object) -> str:
    """The id of a git commit, which no option of git looks like."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{7,64}", value):
        raise ValueError(f"{shown(value)} is no commit; needs its id, 7 to 64 digits of 0-9 and a-f")
    return value


def owner(value: object) -> str:
    """The name of a Kaggle user."""
    if not isinstance(value, str) or not _OWNER.fullmatch(value):
        raise ValueError(f"{shown(value)} is no name of a Kaggle user; needs letters, digits and hyphens")
    return value


def slug(value: object) -> str:
    """One part of an address on Kaggle."""
    if not isinstance(value, str) or not _SLUG.fullmatch(value):
        raise ValueError(f"{shown(value)} is no slug; needs letters, digits and hyphens")
    return value


def source(value: object, *forms: str) -> str:
    """An address on Kaggle in as many parts as one of `forms` has; the first one, such as owner/slug, is asked for."""
    parts = value.split("/") if isinstance(value, str) else []
    if len(parts) not in [form.count("/") + 1 for form in forms] or not all(_SLUG.fullmatch(part) for part in parts):
        raise ValueError(f"{shown(value)} is no address on Kaggle; needs {forms[0]}")
    return str(value)


def version(value: object) -> str:
    """The version of a library, as it may stand behind == in a requirement."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", value):
        raise ValueError(f"{shown(value)} is no version; needs letters, digits, dots and the like")
    return value


def line(value: object) -> str:
    """A text of one line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is not one line of text; needs some words without line breaks")
    return value


def requirement(value: object) -> str:
    """What pip may be asked for: a package's name, with extras, versions and a marker where they are wanted.

    Options, paths and addresses are none: pip would read files or run the setup.py of a folder.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    needs = "needs a package's name and perhaps versions, such as sacrebleu==2.5.1"
    try:
        parsed = Requirement(str(value))
    except InvalidRequirement:
        raise ValueError(f"{shown(value)} is no requirement; {needs}") from None
    # "===" takes any text as a version, a path too.
    is_path = any(letter in f"{parsed.name}{parsed.specifier}" for letter in "/\\:")
    if parsed.url or is_path or parsed.name.lower().endswith(ARCHIVES) or not str(value).isprintable():
        raise ValueError(f"{shown(value)} names a file or an address; {needs}")
    return str(value)


def within(folder: Path, path: Path) -> Path:
    """The path, which lies in the folder after all symbolic links on the way are followed. It looks at the disk."""
    if not is_within(folder, path):
        raise ValueError(f"{str(path)!r} leads out of {folder}; needs a place in that folder")
    return path


def is_within(folder: Path, path: Path) -> bool:
    """Whether a path lies in the folder after all symbolic links are followed; a loop of links lies nowhere."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def plain_tree(folder: Path) -> Path:
    """The folder, which holds files and folders only, no link, pipe or device, and is not too deep.

    It looks at the disk and opens no file.
    """
    for path, depth in _walk(folder):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(
                f"{path}: is {_kind(mode)}; needs files and folders only, put what it leads to in its place"
            )
        if depth > MAX_DEPTH:
            raise ValueError(f"{path}: lies more than {MAX_DEPTH} folders deep; needs a run as podium writes it")
    return folder


def shown(value: object) -> str:
    """A value as a message shows it: on one line, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def one_line(text: str) -> str:
    """A message with what a file's name may hold, line breaks and control characters, spelled out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        yield path, depth
        if path.is_dir() and not path.is_symlink():
            waiting += [(Path(entry.path), depth + 1) for entry in os.scandir(path)]


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _text(value: object) -> str:
    if not isinstance(value, str) or "\\" in value or not value.isprintable():
        raise ValueError(
            f"{shown(value)} is no name; needs a text without backslashes, line breaks and control characters"
        )
    return value


def _short_enough(part: str) -> str:
    if len(os.fsencode(part)) > MAX_NAME_BYTES:
        raise ValueError(f"{shown(part)} is too long for a name; needs at most {MAX_NAME_BYTES} bytes")
    return part


def run_name(address: str) -> str:
    """The address as one word, which names folders and rows: `smoke_mt5_adafactor`."""
    return address.replace("/", "_")
