"""From a run directory to a checked submission: all that a kernel needs at prediction time."""

from pathlib import Path

from pandas import DataFrame

from pipelines.competitions.competition import Competition
from pipelines.competitions.grades import with_grades
from pipelines.competitions.loading import load_competition
from pipelines.competitions.submission_file import check_frame, write_submission
from pipelines.config.load import load_run_config
from pipelines.config.schema import Experiment
from pipelines.errors import PodiumError
from pipelines.learners.registry import create_learner
from pipelines.runs.digests import check_shared_files
from pipelines.runs.folds import check_all_folds
from pipelines.runs.processes import tune
from pipelines.runs.run import NEVER_READ_AGAIN, Run, write_parquet


def main(run_dir: Path, data_dir: Path, output: Path) -> DataFrame:
    """Predict the test rows with every trained fold of a run and write the submission to `output`.

    Beside it lies `test_predictions.parquet` with probabilities or scores. Raises PodiumError naming the file and the
    cure when the run is unfinished, damaged, or of another competition than the data.
    """
    run = Run(run_dir)
    record = run.read_record()
    check_shared_files(run_dir, record, but=NEVER_READ_AGAIN)
    experiment = load_run_config(run_dir)
    if record.competition != experiment.competition:
        raise PodiumError(
            f"{run.record_file}: says competition {record.competition}, config.yaml says {experiment.competition}; "
            "the two files belong to different runs"
        )
    tune(experiment)
    check_all_folds(run)
    competition = with_grades(load_competition(experiment.competition), record.grades)
    test = competition.load_test(data_dir, may_be_empty=True)
    sample = competition.load_sample(data_dir, may_be_empty=True)
    # Kaggle tries a kernel on no rows as well, and wants a header for an answer.
    predictions = test[["id"]] if test.empty else _predict(experiment, competition, run, test)
    submission = sample if sample.empty else competition.to_submission(predictions, sample)
    check_frame(submission, sample, competition, source=str(output))
    write_submission(submission, output)
    write_parquet(predictions, output.with_name(run.test_predictions_file.name))
    if output.resolve() == run.submission_file.resolve():
        run.note_files(run.submission_file, run.test_predictions_file)
    return submission


def _predict(experiment: Experiment, competition: Competition, run: Run, test: DataFrame) -> DataFrame:
    learner = create_learner(experiment, competition, run)
    try:
        return learner.predict(run.trained_checkpoints(), test)
    except ValueError as error:
        raise PodiumError(str(error)) from error
