"""`podium predict`: the test predictions of a finished run once more, from its run directory alone."""

from pathlib import Path

from pipelines.competitions.competition import load_competition
from pipelines.config.workspace import Workspace
from pipelines.engine import prediction
from pipelines.engine.run_index import find_run, newest_finished_run
from pipelines.errors import PodiumError


def predict(
    workspace: Workspace,
    *,
    experiment: str | None,
    run: str | None,
    data_dir: Path | None = None,
    output: Path | None = None,
) -> Path:
    """Write the submission of a run and return its path; by default into the run directory."""
    if run is None and experiment is None:
        raise PodiumError("name an experiment or a run: podium predict EXPERIMENT, or podium predict --run RUN")
    name = (experiment or "").replace("/", "_")
    record = find_run(workspace.runs, run) if run is not None else newest_finished_run(workspace.runs, name)
    competition = load_competition(record.competition)
    target = output or record.submission
    print(f"run {record.folder}")
    submission = prediction.main(record.folder, data_dir or workspace.data_dir(competition.kaggle_slug), target)
    print(f"{target}: {len(submission)} rows, held against the sample")
    return target
