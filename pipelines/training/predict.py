"""`podium predict`: the test predictions of a finished run once more, from its run directory alone."""

from pathlib import Path

from pipelines.competitions.loading import load_competition
from pipelines.errors import PodiumError
from pipelines.modes import warn_of_mode
from pipelines.runs.folds import check_finished
from pipelines.runs.index import find_run, newest_finished_run
from pipelines.runs.lock import check_unlocked
from pipelines.screen import say
from pipelines.training import prediction
from pipelines.workspace import Workspace


def predict(
    workspace: Workspace,
    *,
    experiment: str | None,
    run: str | None,
    data_dir: Path | None = None,
    output: Path | None = None,
) -> Path:
    """Write the submission of a run and return its path; by default into the run directory.

    A smoke or overfit run is predicted only by its id, and is named for what it is. Raises `PodiumError` for a run that
    has not finished, lacks a fold or is being written by another process, and where the disk refuses.
    """
    if run is None and experiment is None:
        raise PodiumError("name an experiment or a run: podium predict EXPERIMENT, or podium predict --run RUN")
    name = (experiment or "").replace("/", "_")
    record = find_run(workspace.runs, run) if run is not None else newest_finished_run(workspace.runs, name)
    check_unlocked(record.folder)
    check_finished(record)
    competition = load_competition(record.competition)
    target = output or record.submission
    say(f"run {record.folder}")
    if not record.is_real:
        say(f"{record.run} is {warn_of_mode(record.mode)}")
    submission = prediction.main(record.folder, data_dir or workspace.data_dir(competition.kaggle_slug), target)
    say(f"{target}: {len(submission)} rows, held against the sample")
    return target
