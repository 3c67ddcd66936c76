"""What the entries of a ledger's line may be: whoever wrote ledger/ is not always whoever reproduces from it.

Names, places and digests of a record become paths, arguments and variables of the environment. Entries that another
version of podium added are passed over, and those that it did not know yet are not missed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines import names
from pipelines.errors import PodiumError

Entry = tuple[str, Callable[[object], object], object]
NEEDED_FILLED = (
    "experiment", "competition", "data_sha256", "config_sha256", "files_sha256", "weights_sha256", "versions",
    "machine",
)  # fmt: skip
NEEDED = (*NEEDED_FILLED, "commit", "diff", "source_sha256", "submission_sha256", "kernel")
MODES = ("smoke", "overfit")


def check_record(line: Mapping[str, Any]) -> None:
    """Raise a ValueError that begins with the entry, for the first one that cannot be."""
    for entry, check, value in _entries(line):
        try:
            if value is not None:  # null is how a record says that there is none
                check(value)
        except ValueError as error:
            raise ValueError(f"{names.one_line(entry)}: {error}") from None


def check_whole(record: Mapping[str, Any]) -> None:
    """Raise a PodiumError for a record without an entry that making the submission again needs."""
    missing = [key for key in NEEDED if key not in record]
    missing += [f"{key} (null)" for key in NEEDED_FILLED if key in record and record[key] is None]
    if missing:
        cure = "make the submission again from a version of podium that writes it, or submit the run once more"
        raise PodiumError(f"{record['ref']}: the record has no {missing[0]}; {cure}")


def training_words(record: Mapping[str, Any]) -> list[str]:
    """The recorded command from `train` on, without --root. Raises PodiumError for another command and an option."""
    words = list(record.get("command") or [])
    if "train" not in words:
        raise PodiumError(f"{record['ref']}: its run was not begun by `podium train` but by `{' '.join(words)}`")
    words = words[words.index("train") :]
    if option := next((word for word in words if word.startswith("-")), None):
        raise PodiumError(
            f"{record['ref']}: command: {option!r} is an option; a training takes a name and key=value only"
        )
    return words


def _entries(line: Mapping[str, Any]) -> Iterator[Entry]:
    """Each entry that becomes more than a text on the screen. A mapping is held to be one before it is gone through."""
    for key in ("ref", "host", "competition", "run"):
        yield key, names.name, line.get(key)
    yield "experiment", names.experiment, line.get("experiment")
    yield from _source_entries(line, "")
    yield "config_sha256", names.digest, line.get("config_sha256")
    for key in ("files_sha256", "weights_sha256"):
        yield from _digests(key, line.get(key))
    yield "data_sha256", _mapping, line.get("data_sha256")
    for name in line.get("data_sha256") or ():
        yield "data_sha256", _data_name, name
    yield "command", _words, line.get("command")
    yield "mode", _mode, line.get("mode")
    for key in ("versions", "machine", "public", "private", "cv", "tracking"):
        yield key, _mapping, line.get(key)
    for name, number in (line.get("versions") or {}).items():
        yield f"versions.{name}", names.version, number
    yield "machine.torch_threads", _count, (line.get("machine") or {}).get("torch_threads")
    yield "kernel", _mapping, line.get("kernel")
    yield from _kernel_entries(line.get("kernel") or {})


def _source_entries(content: Mapping[str, Any], prefix: str) -> Iterator[Entry]:
    """The entries of `pipelines.reproduction.rebuilding.source_of`."""
    yield f"{prefix}commit", names.commit, content.get("commit")
    yield f"{prefix}diff", _mapping, content.get("diff")
    yield f"{prefix}diff.sha256", names.digest, (content.get("diff") or {}).get("sha256")


def _kernel_entries(kernel: Mapping[str, Any]) -> Iterator[Entry]:
    yield "kernel.kernel", lambda value: names.source(value, "owner/slug"), kernel.get("kernel")
    yield from _source_entries(kernel, "kernel.")
    yield from _digests("kernel.files_sha256", kernel.get("files_sha256"))
    yield from _digests("kernel.files", kernel.get("files"))
    yield "kernel.built_with", _mapping, kernel.get("built_with")
    yield "kernel.built_with.mode", _mode, (kernel.get("built_with") or {}).get("mode")


def _digests(key: str, value: Any) -> Iterator[Entry]:  # noqa: ANN401 - JSON is what it is
    """Files by their places, each with its sha256."""
    yield key, _mapping, value
    for name, sha256 in (value or {}).items():
        yield key, names.place, name
        yield f"{key}.{name}", names.digest, "" if sha256 is None else sha256


def _mapping(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{names.shown(value)} is no mapping; needs an object of JSON")


def _words(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{names.shown(value)} is no list of texts; needs the words of a command")


def _data_name(value: object) -> None:
    """A file's, or that of a folder of images, which ends in "/"; "./" are images beside the tables."""
    if value != "./":
        names.place(value.removesuffix("/") if isinstance(value, str) else value)


def _mode(value: object) -> None:
    if value not in MODES:
        raise ValueError(f"{names.shown(value)} is no mode; needs {' or '.join(MODES)}")


def _count(value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{names.shown(value)} is no number of threads; needs 1 or more")
