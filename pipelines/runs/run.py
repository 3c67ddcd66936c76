"""A run: everything one execution of an experiment needed and made, in one directory that is readable by itself.

In a notebook:

    run = Run.open("mt5_adafactor")      # an experiment's newest finished real run, or a run's id or folder
    run.metrics["oof/exact_match"], run.config.optimizer.lr
    run.oof(), run.test_predictions(), run.submission()
"""

import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from components.files.atomic import atomic_file, write_text
from components.files.digests import read_object
from components.memory.byte_sizes import format_bytes
from pipelines.errors import PodiumError
from pipelines.modes import REAL
from pipelines.redaction import without_secrets
from pipelines.runs import index
from pipelines.runs.digests import (
    METRICS,
    RESULT,
    check_checkpoint,
    check_fold,
    check_run_file,
    check_shared_files,
    digest_files,
    list_folds,
    read_result,
)
from pipelines.runs.index import Found
from pipelines.runs.record import RUN_JSON, RunRecord, RunStatus, update_record
from pipelines.runs.source.machine import describe_machine, list_versions
from pipelines.runs.source.state import SourceState

if TYPE_CHECKING:
    from pandas import DataFrame

    from pipelines.config.schema import Experiment

# Weights that a run took over from another one when it began.
WEIGHTS = "init"
# What in a run only training or a reader needs; anything else is taken for what predicting reads.
NEVER_READ_AGAIN = (
    WEIGHTS, "figures", "tracking", "cache", "folds.csv", METRICS, "oof.parquet", "test_predictions.parquet",
    "submission.csv", "submissions.jsonl", "uncommitted.diff", "notes.json",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run directory: where its files lie, what its record says, and changing that record.

    `found` is what the record and the scores said when runs were listed; without it they are read when asked for.
    """

    path: Path
    found: Found | None = None

    # -- finding ---------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, name: str, root: Path | str = ".") -> Self:
        """A run for reading, by an experiment's name (its newest finished real run), a run's id, or its folder.

        `root` is the checkout or a folder within it. Raises PodiumError where there is no such run or it is damaged.
        """
        here = Path(root).resolve()
        runs = next((folder / "runs" for folder in (here, *here.parents) if (folder / "runs").is_dir()), here / "runs")
        if (Path(name) / RUN_JSON).is_file() or any(run.id == Path(name).name for run in cls.list(runs)):
            return cls.find(runs, name)
        return cls.newest_finished(runs, name.replace("/", "_"))

    @classmethod
    def list(cls, runs: Path, experiment: str | None = None) -> list[Self]:
        """All runs under runs/ (of one experiment), oldest first; the damaged ones say what is wrong with them."""
        return [cls(found.path, found) for found in index.list_runs(runs, experiment)]

    @classmethod
    def look(cls, path: Path) -> Self:
        """The run in a folder as it is now; never raises, for a damaged run says so itself."""
        return cls(path, index.look(path))

    @classmethod
    def find(cls, runs: Path, name: str, *, may_be_damaged: bool = False) -> Self:
        """See `index.find_run`."""
        found = index.find_run(runs, name, may_be_damaged=may_be_damaged)
        return cls(found.path, found)

    @classmethod
    def newest_finished(cls, runs: Path, experiment: str, *, mode: str = REAL) -> Self:
        """See `index.newest_finished_run`."""
        found = index.newest_finished_run(runs, experiment, mode=mode)
        return cls(found.path, found)

    @classmethod
    def newest_unfinished(cls, runs: Path, experiment: str) -> Self:
        """See `index.newest_unfinished_run`."""
        found = index.newest_unfinished_run(runs, experiment)
        return cls(found.path, found)

    @classmethod
    def of_name(cls, runs: Path, name: str) -> Self:
        """See `index.run_of_name`."""
        found = index.run_of_name(runs, name)
        return cls(found.path, found)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def record(self) -> RunRecord:
        """The content of run.json. Raises PodiumError where there is none or it is damaged."""
        return self.found.record if self.found else self.read_record()

    @property
    def experiment(self) -> str:
        return self.record.experiment

    @property
    def competition(self) -> str:
        return self.record.competition

    @property
    def mode(self) -> str:
        """ "real", "smoke" or "overfit"; "unknown" where its record is damaged."""
        return self.record.mode_name

    @property
    def trial(self) -> str:
        """ "a smoke run" or "an overfit run"; "" for a real one."""
        return self.record.trial

    @property
    def is_real(self) -> bool:
        """Neither a smoke run nor an overfit run, nor damaged."""
        return self.mode == REAL and not self.damage

    @property
    def status(self) -> RunStatus:
        return self.found.status if self.found else self.record.status

    @property
    def damage(self) -> str:
        """What is wrong with its files, "" where they are as they were written."""
        return (self.found or index.look(self.path)).damage

    @property
    def lost(self) -> str:
        """What is no longer there of what only tables show; the run still predicts."""
        return (self.found or index.look(self.path)).lost

    @property
    def metrics(self) -> dict[str, float]:
        """Scores by their names, `cv/<metric>`, `oof/<metric>`, `fold0/<metric>`; empty while it has not finished."""
        return dict(self.found.metrics) if self.found else self.read_metrics()

    @property
    def config(self) -> "Experiment":
        """The configuration that it was trained with, every field resolved."""
        from pipelines.config.load import load_run_config

        check_run_file(self.path, self.record, self.config_file.name)
        return load_run_config(self.path)

    def oof(self) -> "DataFrame":
        """The predictions of the training rows, each by the fold that did not see it, beside `true_<label>`."""
        return self._read_table(self.oof_file)

    def test_predictions(self) -> "DataFrame":
        """The predictions of the test rows with probabilities or scores: `id`, `prediction` and one column a class."""
        return self._read_table(self.test_predictions_file)

    def submission(self) -> "DataFrame":
        """What was or can be submitted, in the form of the sample; every cell as its text."""
        return self._read_table(self.submission_file)

    def _read_table(self, path: Path) -> "DataFrame":
        """A table that the run made, held against its digest. Raises PodiumError with the command that makes it."""
        import pandas as pd

        if not path.is_file():
            cure = f"make resume RUN={self.id}" if self.status != RunStatus.FINISHED else f"make predict RUN={self.id}"
            raise PodiumError(f"{path}: no such file; `{cure}` writes it")
        check_run_file(self.path, self.read_record(), path.name)
        return pd.read_csv(path, dtype=str, keep_default_na=False) if path.suffix == ".csv" else pd.read_parquet(path)

    # -- files -----------------------------------------------------------------------------------------------------

    @property
    def record_file(self) -> Path:
        return self.path / RUN_JSON

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def diff_file(self) -> Path:
        """What differed from the commit; missing where nothing did."""
        return self.path / "uncommitted.diff"

    @property
    def folds_file(self) -> Path:
        return self.path / "folds.csv"

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS

    @property
    def oof_file(self) -> Path:
        return self.path / "oof.parquet"

    @property
    def test_predictions_file(self) -> Path:
        return self.path / "test_predictions.parquet"

    @property
    def submission_file(self) -> Path:
        return self.path / "submission.csv"

    @property
    def submissions_file(self) -> Path:
        """One JSON line per submission of this run, on any host."""
        return self.path / index.SUBMISSIONS

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def fold(self, name: str) -> Path:
        """The folder of one fold, named `fold0`, `fold1`, … or `full`."""
        return self.path / name

    @property
    def own_weights(self) -> Path | None:
        """The weights that it took over when it began, if it did."""
        folder = self.path / WEIGHTS
        return folder if folder.is_dir() else None

    def trained_checkpoints(self) -> Sequence[Path]:
        """The checkpoint of each finished fold, in order, held against its digests.

        Raises PodiumError where none has finished, and for a file that is missing or damaged.
        """
        record = self.read_record()
        folds = list_folds(self.path, record)
        if not folds:
            raise PodiumError(f"{self.path}: no fold has finished; `make resume RUN={self.id}` goes on with it")
        results = {fold: read_result(self.path, record, fold) for fold in folds}
        return [check_checkpoint(self.path, record, fold, result) for fold, result in results.items()]

    def prediction_files(self) -> Sequence[Path]:
        """All that predicting reads, sorted: configuration, record, what folds share, and each fold's checkpoint."""
        results = sorted(self.path.glob(f"*/{RESULT}"))
        checkpoints: set[Path] = set()
        if results:
            record = self.read_record()
            checkpoints = {p.parent / read_result(self.path, record, p.parent.name).checkpoint for p in results}
        others = {path for path in self.path.iterdir() if path.name not in NEVER_READ_AGAIN}
        others -= {path.parent for path in [*results, *self.path.glob("*/history.jsonl")]}
        files = {path for path in others if path.is_file()}
        inside = {path for folder in [*checkpoints, *others] for path in folder.rglob("*") if path.is_file()}
        return sorted(files | inside | set(results))

    # -- its record ------------------------------------------------------------------------------------------------

    def read_record(self) -> RunRecord:
        """The content of run.json as it is now; a PodiumError where there is none or it is damaged."""
        try:
            return RunRecord.read(self.record_file)
        except PodiumError as error:
            if not self.record_file.exists():
                raise
            raise PodiumError(f"{error}; put it back from a copy, or start a new run") from error

    def update_record(self, **changes: Any) -> None:  # noqa: ANN401 - as `dataclasses.replace`
        """Change fields of run.json, atomically."""
        update_record(self.record_file, **changes)

    def note_files(self, *paths: Path) -> None:
        """Name the present digests of files in run.json; a run of an older version names none, and goes on so."""
        former = self.read_record().files_sha256
        if former is not None:
            digests = {**former, **digest_files(self.path, [p.relative_to(self.path).as_posix() for p in paths])}
            if digests != former:
                self.update_record(files_sha256=digests)

    def check_prediction_files(self) -> None:
        """PodiumError naming the first damaged file of those that predicting reads; a kernel and the ledger pack them.

        A run of an older version names no digests and is not looked at.
        """
        record = self.read_record()
        if record.has_digests:
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
            write_text(self.diff_file, without_secrets(diff))

    def read_diff(self) -> str:
        """The uncommitted changes to the last byte; "" where there were none."""
        return self.diff_file.read_bytes().decode("utf-8", errors="replace") if self.diff_file.is_file() else ""

    def read_metrics(self) -> dict[str, float]:
        """The content of metrics.json; empty while the run has not finished."""
        if not self.metrics_file.exists():
            return {}
        check_run_file(self.path, self.read_record(), METRICS)
        try:
            return dict(read_object(self.metrics_file))
        except ValueError as error:
            raise PodiumError(str(error)) from error


def run_place(runs: Path, experiment: str, run: str) -> Path:
    """Where a run of an experiment lies: `runs/<experiment>/<run>`, and nowhere else is that put together."""
    return runs / experiment.replace("/", "-") / run


def new_run(runs: Path, experiment: str) -> Run:
    """A place for a new run, named `<UTC time>-<4 hex digits>`, which sorts by time; nothing is made yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Run(run_place(runs, experiment, f"{stamp}-{secrets.token_hex(2)}"))


def start_record(run: Run, record: RunRecord, source: SourceState) -> None:
    """Write the first version of run.json: `record` with the source, the command and the machine, and what is there."""
    run.write_diff(source.diff)
    whole = replace(
        record,
        command=tuple(without_secrets(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=source.commit,
        branch=source.branch,
        dirty=source.is_dirty,
        git_problem=source.problem,
        source_sha256=source.sha256,
        versions=list_versions(),
        machine=describe_machine(),
        files_sha256=digest_files(run.path),
    )
    whole.write(run.record_file)


def remove_resume_points(run: Run) -> int:
    """Drop what only a resume needs; returns the bytes freed."""
    freed = 0
    weights = run.own_weights
    cache = run.path / "cache"
    for folder in [*run.path.glob("*/resume"), *([weights] if weights else []), *([cache] if cache.is_dir() else [])]:
        files = (file.stat() for file in folder.rglob("*") if file.is_file())
        # What the run it began from holds as well is not freed.
        freed += sum(file.st_size for file in files if file.st_nlink == 1)
        shutil.rmtree(folder)
    return freed


def write_parquet(frame: "DataFrame", path: Path) -> None:
    """Write a frame atomically."""
    with atomic_file(path) as partial:
        frame.to_parquet(partial, index=False)


def check_disk(folder: Path, num_bytes: int) -> None:
    """PodiumError unless the file system of `folder` has `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise PodiumError(
            f"{folder}: {format_bytes(free)} free, but this run may write {format_bytes(num_bytes)}; free some "
            "space (`podium runs prune` removes what finished runs no longer need) or choose another --root"
        )
