"""What run.json and the folds' results say of a run's other files, and holding the files against it.

run.json names the digest of every file that its folds share, of each fold's result.json and of what the run made;
result.json names those of the fold's predictions, curves and checkpoint. Runs of older versions name none and are
read unchecked.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.files.digests import DIGESTS, check_file, check_folder, file_digest, read_object, write_digests
from pipelines import names
from pipelines.errors import PodiumError
from pipelines.records import DamagedRecord
from pipelines.runs.record import FoldResult, RunRecord

METRICS = "metrics.json"
RESULT = "result.json"
# What training makes once more from its folds where it is missing.
MADE_AT_THE_END = (METRICS, "oof.parquet", "submission.csv", "test_predictions.parquet")
# Decoded images, which are read from their files where they are missing.
CACHE = "cache"


def digest_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """The digest of each file below `folder`, or of those named, by its path from there."""
    paths = folder.rglob("*") if names is None else (folder / name for name in names)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(paths) if path.is_file()}


def check_run_file(run: Path, record: RunRecord, name: str) -> None:
    """PodiumError with a cure unless a file of a run has the digest that the run's record names."""
    stated = record.files_sha256
    if stated is None:
        return
    try:
        if name not in stated:
            raise ValueError(f"{run / name}: run.json names no digest of it")
        check_file(run / name, stated[name])
    except ValueError as error:
        raise PodiumError(f"{error}; {_cure(run, record, name)}") from None


def check_shared_files(run: Path, record: RunRecord, *, but: Iterable[str] = ()) -> None:
    """PodiumError naming the first damaged file of those that all folds share; `but` are names at the top of the run.

    Neither results of folds nor what is made at the end are looked at.
    """
    passed = {*but, *MADE_AT_THE_END} | (set() if (run / CACHE).is_dir() else {CACHE})
    for name in record.files_sha256 or {}:
        if Path(name).parts[0] not in passed and Path(name).name != RESULT:
            check_run_file(run, record, name)


def digest_fold(folder: Path, checkpoint: str) -> dict[str, str]:
    """What a fold's result.json says of the fold's files: predictions, curves, and the digests of its checkpoint."""
    if not (folder / checkpoint / DIGESTS).exists():  # an older version began this fold
        write_digests(folder / checkpoint)
    return digest_files(folder, ["oof.parquet", "history.jsonl", f"{checkpoint}/{DIGESTS}"])


def read_result(run: Path, record: RunRecord, fold: str) -> FoldResult:
    """The result.json of a fold; a PodiumError with a cure where it is damaged or not the one that run.json names."""
    path, stated = run / fold / RESULT, record.files_sha256
    try:
        digest = (stated or {}).get(f"{fold}/{RESULT}")
        # A kill may come after the result and before run.json names it.
        if digest is not None:
            check_file(path, digest)
        return FoldResult.from_file(path, has_digests=stated is not None)
    except (ValueError, DamagedRecord) as error:
        raise PodiumError(f"{error}; {_cure(run, record, f'{fold}/{RESULT}')}") from None


def check_checkpoint(run: Path, record: RunRecord, fold: str, result: FoldResult) -> Path:
    """The checkpoint that a fold's result names; a PodiumError with a cure where one of its files is damaged."""
    folder, name = run / fold / result.checkpoint, f"{result.checkpoint}/{DIGESTS}"
    try:
        if (stated := result.files_sha256) is not None:
            check_file(run / fold / name, stated.get(name))
            check_folder(folder)
    except ValueError as error:
        raise PodiumError(f"{error}; {_cure(run, record, fold)}") from None
    return folder


def check_fold(run: Path, record: RunRecord, fold: str) -> None:
    """PodiumError naming the first damaged file of a fold that is done."""
    result = read_result(run, record, fold)
    check_checkpoint(run, record, fold, result)
    try:
        for name, digest in (result.files_sha256 or {}).items():
            check_file(run / fold / name, digest)
    except ValueError as error:
        raise PodiumError(f"{error}; {_cure(run, record, fold)}") from None


def list_folds(run: Path, record: RunRecord) -> list[str]:
    """The folds that are done: those with a result, and those whose result run.json names."""
    named = {Path(name).parent.as_posix() for name in record.files_sha256 or {} if Path(name).name == RESULT}
    return sorted({path.parent.name for path in run.glob(f"*/{RESULT}")} | named)


def list_missing(run: Path, record: RunRecord) -> list[str]:
    """What the run had made, as run.json says, that is no longer there and that training makes again."""
    names = record.files_sha256 or {}
    return [n for n in names if (n in MADE_AT_THE_END or Path(n).name == RESULT) and not (run / n).exists()]


def _cure(run: Path, record: RunRecord, name: str) -> str:
    first = Path(name).parts[0]
    resume = f"make resume RUN={run.name}"
    if name in ("submission.csv", "test_predictions.parquet"):
        return f"`make predict RUN={run.name}` writes it again"
    if name in MADE_AT_THE_END:
        return f"put it back from a copy, or delete it and `{resume}` makes it again"
    if re.fullmatch(r"full|fold\d+", first):
        return f"put it back from a copy, or delete {run / first} and `{resume}` trains this fold again"
    experiment = record.experiment
    if name == "config.yaml":
        return (
            f"put the former file back; a run keeps its configuration, and `make experiment EXP={experiment} SET=...` "
            "starts another one"
        )
    return f"put it back from a copy, or start a new run with `make experiment EXP={experiment}`"
