"""Digests of all that a competition's runs read: tables under any of their names, arrays, and folders of images.

A name that ends in "/" is a folder, whose one digest covers the relative names and the contents of its files. They
are read by several threads, each time anew, since a digest that was kept could lie.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.files.digests import file_digest
from pipelines.competitions.competition import Competition
from pipelines.competitions.embedded import MANIFEST
from pipelines.competitions.kaggle_files import USUAL_NAMES, find_kaggle_file
from pipelines.errors import PodiumError

TABLES = (".csv", ".tsv", ".parquet")
PACKED = (".gz", ".zip")
ARRAY = ".npy"
OWN = (MANIFEST, "folds", "local_host")  # what this project puts beside a competition's files


def hash_data(data_dir: Path, competition: Competition | None = None) -> dict[str, str]:
    """SHA-256 of each table, each array and, with the competition, each folder of images that its runs read."""
    names = dict.fromkeys(_table_names(data_dir))
    names |= dict.fromkeys(_image_names(data_dir, competition) if competition is not None else ())
    found = {name: digest_of(data_dir, name) for name in names}
    return {name: digest for name, digest in found.items() if digest is not None}


def digest_of(data_dir: Path, name: str) -> str | None:
    """The digest of a file, or of a folder whose name ends in "/"; None where there is none."""
    path = data_dir / name
    if name.endswith("/"):
        return _folder_digest(path, is_whole=path.resolve() == data_dir.resolve()) if path.is_dir() else None
    return file_digest(path) if path.is_file() else None


def find_table_name(data_dir: Path, name: str) -> str:
    """The table that is read now in the role of the one that was called `name`; `name` itself where it has no role."""
    stem = name.lower().replace("-", "_").partition(".")[0]
    for role, stems in USUAL_NAMES.items():
        if stem in stems:
            try:
                return find_kaggle_file(data_dir, role).name
            except PodiumError:
                return name
    return name


def _table_names(data_dir: Path) -> Iterator[str]:
    """First as older records have them, so that their order stays."""
    for suffix in (".csv", ARRAY):
        yield from (path.name for path in sorted(data_dir.glob(f"*{suffix}")))
    for path in sorted(data_dir.glob("*")):
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]] or [""]
        is_packed_table = len(suffixes) == 2 and suffixes[0] in TABLES and suffixes[1] in PACKED
        if path.is_file() and (suffixes[-1] in (*TABLES, ARRAY) or is_packed_table):
            yield path.name
    for role in USUAL_NAMES:
        try:
            yield find_kaggle_file(data_dir, role).name
        except PodiumError:
            continue  # whoever needs it says that it is missing


def _image_names(data_dir: Path, competition: Competition) -> Iterator[str]:
    """The folders, or the arrays, that the places of a competition's images lie in."""
    if competition.images is None:
        return
    for place in (competition.images.train, competition.images.test):
        array, mark, _ = place.partition(f"{ARRAY}#")
        yield f"{array}{ARRAY}" if mark else f"{place.partition('{}')[0].rpartition('/')[0]}/".lstrip("/") or "./"


def _folder_digest(folder: Path, *, is_whole: bool) -> str:
    """`is_whole` is for a competition whose images lie beside its tables, which have digests of their own."""
    files = sorted(_files(folder, is_whole=is_whole))
    # More threads than cores, since reading waits for the disk.
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        digests = pool.map(file_digest, [folder / name for name in files], chunksize=1)
        listed = [[name, digest] for name, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _files(folder: Path, *, is_whole: bool) -> Iterator[str]:
    """The relative names of the files below a folder, through links, but for hidden ones."""
    for place, folders, names in os.walk(folder, followlinks=True):
        inside = Path(place).relative_to(folder)
        is_top = is_whole and place == str(folder)
        folders[:] = [name for name in folders if not name.startswith(".") and not (is_top and name in OWN)]
        for name in names:
            is_other = is_top and (name in OWN or Path(name).suffix.lower() in (*TABLES, *PACKED, ARRAY))
            if not name.startswith(".") and not is_other and (Path(place) / name).is_file():
                yield (inside / name).as_posix()
