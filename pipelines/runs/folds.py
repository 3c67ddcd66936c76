"""The folds that a run consists of, and whether all of them are there: an average over fewer is another model."""

from pathlib import Path

from pipelines.config.experiment_file import read_values
from pipelines.runs.digests import RESULT, check_checkpoint, read_result
from pipelines.runs.run import Run
from pipelines.runs.record import RunStatus
from pipelines.errors import PodiumError

FULL_FIT = "full"


def name_folds(choice: str, num_folds: int) -> list[str]:
    """The folders of the folds to train: `fold0`, `fold1`, … or `full`. `choice` is the experiment's key `fold`."""
    if choice == "all":
        return [FULL_FIT]
    chosen = range(num_folds) if choice == "each" else [int(choice)]
    return [f"fold{index}" for index in chosen]


def expected_folds(run: Run) -> list[str]:
    """The folds that a run must have, by its record; by its configuration and folds.csv where it is an older one.

    Empty where neither tells: an older run that was packed without its folds. Raises `PodiumError` for damaged files.
    """
    recorded = run.read_record().fold_names
    if recorded is not None:
        return list(recorded)
    if not run.folds_file.is_file():
        return []
    choice = read_values(run.config_file, str(run.config_file)).get("fold")
    if choice is None:
        return []
    try:
        return name_folds(str(choice), _count_folds(run) if choice == "each" else 0)
    except ValueError as error:
        raise PodiumError(f"{run.config_file}: fold: {choice!r}: is no fold; restore the file") from error


def check_finished(run: Run) -> None:
    """PodiumError unless the run has finished and each of its folds is there."""
    if run.status is not RunStatus.FINISHED:
        raise PodiumError(f"{run.path}: {run.status}; finish it with: make resume RUN={run.id}")
    check_all_folds(run)


def check_all_folds(run: Run) -> None:
    """PodiumError for a fold of the run that has not finished or is gone, and for one that is none of its own."""
    expected = expected_folds(run)
    if not expected:
        return
    found = {path.parent.name for path in run.path.glob("*/result.json")}
    missing = [name for name in expected if name not in found]
    if missing:
        record, resume = run.read_record(), f"make resume RUN={run.path.name}"
        several = f" ({_listed(missing)} of {len(expected)} folds are not there)" if len(missing) > 1 else ""
        cure = f"put it back from a copy, or make the run again: make experiment EXP={record.experiment}"
        if record.status is not RunStatus.FINISHED:
            cure = f"finish it with: {resume}"
        elif record.has_digests:
            cure = f"put it back from a copy, or `{resume}` trains what is missing"
        raise PodiumError(f"{run.fold(missing[0]) / RESULT}: missing{several}; {cure}")
    strange = sorted(found - set(expected))
    if strange:
        place = run.path / strange[0]
        raise PodiumError(f"{place}: is no fold of this run, which has {_listed(expected)}; move it out of the run")
    record = run.read_record()
    for name in expected:
        folder = run.fold(name) / read_result(run.path, record, name).checkpoint
        if not folder.is_dir():
            raise PodiumError(f"{folder}: no such folder, which its fold's {RESULT} names as its weights; put it back")


def first_checkpoint(run: Run) -> Path:
    """The checkpoint of the first fold that a run must have, held against its digests, for whoever takes only one."""
    expected, record = expected_folds(run), run.read_record()
    if not expected:
        return run.trained_checkpoints()[0]
    return check_checkpoint(run.path, record, expected[0], read_result(run.path, record, expected[0]))


def _count_folds(run: Run) -> int:
    """One more than the highest fold in folds.csv; its second column is read, for pandas would take longer to load."""
    try:
        lines = run.folds_file.read_text(encoding="utf-8").splitlines()[1:]
        return max(int(line.rsplit(",", 1)[1]) for line in lines) + 1
    except (OSError, ValueError, IndexError) as error:
        raise PodiumError(f"{run.folds_file}: cannot be read ({error}); put the file back") from error


def _listed(names: list[str]) -> str:
    return ", ".join(names)
