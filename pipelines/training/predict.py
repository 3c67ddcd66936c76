"""`podium predict`: the test predictions of a finished run once more, from its run directory alone."""

from pathlib import Path

from pipelines.competitions.loading import load_competition
from pipelines.errors import PodiumError
from pipelines.modes import warn_of_mode
from pipelines.runs.folds import check_finished
from pipelines.runs.lock import check_unlocked
from pipelines.runs.run import Run
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
    chosen = Run.find(workspace.runs, run) if run is not None else Run.newest_finished(workspace.runs, name)
    check_unlocked(chosen.path)
    check_finished(chosen)
    competition = load_competition(chosen.competition)
    target = output or chosen.submission_file
    say(f"run {chosen.path}")
    if not chosen.is_real:
        say(f"{chosen.id} is {warn_of_mode(chosen.mode)}")
    submission = prediction.main(chosen.path, data_dir or workspace.data_dir(competition.kaggle_slug), target)
    say(f"{target}: {len(submission)} rows, held against the sample")
    return target
