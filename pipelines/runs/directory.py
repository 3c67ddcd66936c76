"""The run directory: everything one execution of an experiment needed and made, readable without this project.

`run.json` is the record that makes a run rebuildable; it is written before training starts and completed at its end.
"""

import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files.atomic import atomic_file, write_json, write_text
from components.files.digests import check_seal, read_object, sealed
from components.memory.byte_sizes import format_bytes
from pipelines.redaction import without_secrets
from pipelines.runs.digests import (
    FILES,
    RESULT,
    check_checkpoint,
    check_fold,
    check_run_file,
    check_shared_files,
    digest_files,
    list_folds,
    read_result,
)
from pipelines.runs.source_state import SourceState
from pipelines.errors import PodiumError

if TYPE_CHECKING:
    from pandas import DataFrame

RECORDED_LIBRARIES = (
    "torch", "torchvision", "timm", "transformers", "tokenizers", "accelerate", "safetensors", "sentencepiece",
    "scikit-learn", "numpy", "pandas", "pyarrow", "scipy", "omegaconf", "mlflow", "kaggle",
    # Adafactor steps in other code without it.
    "numba",
)  # fmt: skip
# Weights that a run took over from another one when it began.
WEIGHTS = "init"
# What in a run only training or a reader needs; anything else is taken for what predicting reads.
NEVER_READ_AGAIN = (
    WEIGHTS, "figures", "tracking", "cache", "folds.csv", "metrics.json", "oof.parquet", "test_predictions.parquet",
    "submission.csv", "submissions.jsonl", "uncommitted.diff",
)  # fmt: skip


@dataclass(frozen=True)
class RunDirectory:
    """Names of the files in a run directory, and the reading and writing of its record."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def diff(self) -> Path:
        """What differed from the commit; missing where nothing did."""
        return self.path / "uncommitted.diff"

    @property
    def folds(self) -> Path:
        return self.path / "folds.csv"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def oof(self) -> Path:
        return self.path / "oof.parquet"

    @property
    def test_predictions(self) -> Path:
        return self.path / "test_predictions.parquet"

    @property
    def submission(self) -> Path:
        return self.path / "submission.csv"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def fold(self, name: str) -> Path:
        """The folder of one fold, named `fold0`, `fold1`, … or `full`."""
        return self.path / name

    def trained_checkpoints(self) -> list[Path]:
        """The checkpoint of each finished fold, in order, held against its digests.

        Raises PodiumError where none has finished, and for a file that is missing or damaged.
        """
        record = self.read_record()
        folds = list_folds(self.path, record)
        if not folds:
            raise PodiumError(f"{self.path}: no fold has finished; `make resume RUN={self.path.name}` goes on with it")
        results = {fold: read_result(self.path, record, fold) for fold in folds}
        return [check_checkpoint(self.path, record, fold, result) for fold, result in results.items()]

    def prediction_files(self) -> list[Path]:
        """All that predicting reads, sorted: configuration, record, what folds share, and each fold's checkpoint."""
        results = sorted(self.path.glob("*/result.json"))
        record = self.read_record() if results else {}
        checkpoints = [p.parent / read_result(self.path, record, p.parent.name)["checkpoint"] for p in results]
        others = {path for path in self.path.iterdir() if path.name not in NEVER_READ_AGAIN}
        others -= {path.parent for path in [*results, *self.path.glob("*/history.jsonl")]}
        files = {path for path in others if path.is_file()}
        inside = {path for folder in [*checkpoints, *others] for path in folder.rglob("*") if path.is_file()}
        return sorted(files | inside | set(results))

    def read_record(self) -> dict[str, Any]:
        """The content of run.json; a PodiumError where there is none or it is damaged."""
        if not self.record.exists():
            raise PodiumError(f"{self.path} is no run directory: it has no run.json")
        try:
            record = read_object(self.record)
            check_seal(record, self.record, is_required=FILES in record)
        except ValueError as error:
            raise PodiumError(f"{error}; put it back from a copy, or start a new run") from error
        return record

    def update_record(self, **changes: object) -> None:
        """Replace some entries of run.json, atomically."""
        write_json(self.record, sealed(self.read_record() | changes))

    def note_files(self, *paths: Path) -> None:
        """Name the present digests of files in run.json; a run of an older version names none, and goes on so."""
        record = self.read_record()
        if FILES in record:
            digests = record[FILES] | digest_files(self.path, [p.relative_to(self.path).as_posix() for p in paths])
            if digests != record[FILES]:
                self.update_record(**{FILES: digests})

    def check_prediction_files(self) -> None:
        """PodiumError naming the first damaged file of those that predicting reads; a kernel and the ledger pack them.

        A run of an older version names no digests and is not looked at.
        """
        record = self.read_record()
        if FILES in record:
            check_shared_files(self.path, record, but=NEVER_READ_AGAIN)
            self.trained_checkpoints()

    def check_files(self) -> None:
        """PodiumError naming the first damaged file of those that a resume builds on."""
        record = self.read_record()
        check_shared_files(self.path, record)
        for fold in list_folds(self.path, record):
            if (self.fold(fold) / RESULT).exists():
                check_fold(self.path, record, fold)

    def write_diff(self, diff: str) -> None:
        """Keep uncommitted changes, without the secrets in them; no changes, no file."""
        if diff:
            write_text(self.diff, without_secrets(diff))

    def read_diff(self) -> str:
        """The uncommitted changes to the last byte; "" where there were none."""
        return self.diff.read_bytes().decode("utf-8", errors="replace") if self.diff.is_file() else ""

    def read_metrics(self) -> dict[str, float]:
        """The content of metrics.json; empty while the run has not finished."""
        if not self.metrics.exists():
            return {}
        check_run_file(self.path, self.read_record(), self.metrics.name)
        try:
            return dict(read_object(self.metrics))
        except ValueError as error:
            raise PodiumError(str(error)) from error


def name_run_directory(runs: Path, experiment: str) -> RunDirectory:
    """A new place `runs/<experiment>/<UTC time>-<4 hex digits>`, which sorts by time; nothing is made yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return RunDirectory(runs / experiment.replace("/", "-") / f"{stamp}-{secrets.token_hex(2)}")


def own_weights(run: RunDirectory) -> Path | None:
    """The weights that a run took over when it began, if it did."""
    folder = run.path / WEIGHTS
    return folder if folder.is_dir() else None


def remove_resume_points(run: RunDirectory) -> int:
    """Drop what only a resume needs; returns the bytes freed."""
    freed = 0
    weights = own_weights(run)
    cache = run.path / "cache"
    for folder in [*run.path.glob("*/resume"), *([weights] if weights else []), *([cache] if cache.is_dir() else [])]:
        files = (file.stat() for file in folder.rglob("*") if file.is_file())
        # What the run it began from holds as well is not freed.
        freed += sum(file.st_size for file in files if file.st_nlink == 1)
        shutil.rmtree(folder)
    return freed


def describe_machine() -> dict[str, object]:
    """Processor, memory, GPUs and threads: what equal bits depend on."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "torch_threads": torch.get_num_threads(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def list_versions(also: Iterable[str] = ()) -> dict[str, str]:
    """The versions of python and of the libraries that touch numbers, and of others by name."""
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys((*RECORDED_LIBRARIES, *also)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def start_record(
    *, run: RunDirectory, experiment: str, competition: str, source: SourceState, entries: Mapping[str, object]
) -> None:
    """Write the first version of run.json; `entries` holds seeds, data and fold hashes and the tracker's run."""
    record = {
        "run": run.path.name,
        "experiment": experiment,
        "competition": competition,
        "status": "running",
        "command": [without_secrets(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source.commit,
        "branch": source.branch,
        "dirty": source.is_dirty,
        **({"git_problem": source.problem} if source.problem else {}),
        "source_sha256": source.sha256,
        "versions": list_versions(),
        "machine": describe_machine(),
        **entries,
    }
    run.write_diff(source.diff)
    write_json(run.record, sealed(record | {FILES: digest_files(run.path)}))


def dirty_tag(record: Mapping[str, Any]) -> str:
    """What trackers are told of uncommitted changes: true, false or unknown."""
    dirty = record.get("dirty")
    return str(dirty).lower() if isinstance(dirty, bool) else "unknown"


def write_parquet(frame: "DataFrame", path: Path) -> None:
    """Write a frame atomically."""
    with atomic_file(path) as partial:
        frame.to_parquet(partial, index=False)


def peak_memory_bytes() -> int:
    """The most memory this process ever held, of the GPU's where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())))
    import resource

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kibibytes) * (1 if sys.platform == "darwin" else 1024)


def check_disk(folder: Path, num_bytes: int) -> None:
    """PodiumError unless the file system of `folder` has `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise PodiumError(
            f"{folder}: {format_bytes(free)} free, but this run may write {format_bytes(num_bytes)}; free some "
            "space (`podium runs prune` removes what finished runs no longer need) or choose another --root"
        )
