"""How competitions whose data travel in packages write them: in Kaggle's form, always the same bytes, answers apart."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.files.atomic import remove_leftovers, scratch_folder
from components.files.digests import file_digest
from pipelines.competitions.competition import PreparationFolders
from pipelines.competitions.csv_text import to_csv_text
from pipelines.errors import PodiumError
from pipelines.packages import find_package, find_package_folder  # noqa: F401 - competitions that users wrote import them from here

MANIFEST = "SHA256SUMS"
STAGING = ".preparing"
PUBLIC_SHARE = 0.3

Files = dict[str, pd.DataFrame | NDArray[np.uint8]]


@dataclass(frozen=True)
class EmbeddedTables:
    """All that is written of a competition; `solution` has a `usage` column, `baselines` are submissions by name.

    `arrays` are images by file name, uint8, for rows of train and test to name.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    sample_submission: pd.DataFrame
    solution: pd.DataFrame
    baselines: Mapping[str, pd.DataFrame]
    arrays: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def write_tables(tables: EmbeddedTables, folders: PreparationFolders, *, source: str) -> None:
    """Write every file of a competition, each folder's manifest last, so that an interrupted run is no finished one.

    Nothing that is there is touched before all is written beside it, for which the disk may be too full.
    `source` (package and version) stands in the manifests, which `sha256sum -c SHA256SUMS` can check.
    """
    shown: Files = {
        "train.csv": tables.train,
        "test.csv": tables.test,
        "sample_submission.csv": tables.sample_submission,
    }
    shown |= tables.arrays
    hidden: Files = {"solution.csv": tables.solution}
    hidden |= {f"baselines/{name}.csv": frame for name, frame in sorted(tables.baselines.items())}
    # On the same disks, from which files are moved into place.
    with scratch_folder(folders.local_host / STAGING) as one, scratch_folder(folders.data / STAGING) as other:
        staged = ((folders.local_host, hidden, one), (folders.data, shown, other))
        for _, files, staging in staged:
            _write_files(staging, files, source)
        for folder, _, _ in staged:
            (folder / MANIFEST).unlink(missing_ok=True)
        for folder, files, staging in staged:
            for name in (*files, MANIFEST):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(folder / name)


def check_manifest(folder: Path) -> bool:
    """Whether a folder holds all that its manifest lists. Raises `PodiumError` for a file that was changed since."""
    manifest = read_manifest(folder)
    present = {name: digest for name, digest in manifest.items() if (folder / name).is_file()}
    for name, digest in present.items():
        if file_digest(folder / name) != digest:
            raise PodiumError(f"{folder / name}: changed since it was prepared; renew it with --force, or put it back")
    return bool(manifest) and len(present) == len(manifest)


def remove_staging(folder: Path) -> None:
    """Remove what a preparation that was killed has left in a competition's folder."""
    remove_leftovers(folder)
    for leftover in folder.glob(f"{STAGING}-*"):  # an older version's, without a lock
        shutil.rmtree(leftover, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, str]:
    """File name -> sha256, as the last complete preparation left them; empty without one."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines if not line.startswith("#"))}


def hash_share(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on the text alone: a split without seed or order, equal on every machine."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=salt.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def row_id(*parts: str) -> str:
    """A short id that tells nothing; it begins with a letter, or readers would take "1e5" for a number."""
    return "r" + hashlib.blake2b("\t".join(parts).encode(), digest_size=6, person=b"id").hexdigest()


def usage_of(text: str) -> str:
    """Whether the answer to a text counts on the public leaderboard or on the private one."""
    return "public" if hash_share(text, "usage") < PUBLIC_SHARE else "private"


def _write_files(folder: Path, files: Files, source: str) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, pd.DataFrame):
            (folder / name).write_bytes(to_csv_text(content).encode())
        else:
            np.save(folder / name, content, allow_pickle=False)
    digests = "".join(f"{file_digest(folder / name)}  {name}\n" for name in files)
    (folder / MANIFEST).write_text(f"# from {source}\n{digests}", encoding="utf-8")
