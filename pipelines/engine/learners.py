"""Which learner trains which model: the one table."""

from collections.abc import Callable

from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.engine.learner import Learner
from pipelines.engine.run_directory import RunDirectory


def create_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    """The learner of the experiment's model."""
    return _LEARNERS[experiment.data.name](experiment, competition, run)


def _create_text_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.text_learner import TextLearner  # torch takes two seconds, which a table model can do without

    return TextLearner(experiment, competition, run)


def _create_image_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.image_learner import ImageLearner

    return ImageLearner(experiment, competition, run)


def _create_sentence_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.sentence_learner import SentenceLearner

    return SentenceLearner(experiment, competition, run)


def _create_encoder_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.encoder_learner import EncoderLearner

    return EncoderLearner(experiment, competition, run)


def _create_table_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.table_learner import TableLearner

    return TableLearner(experiment, competition, run)


def _create_pixel_learner(experiment: Experiment, competition: Competition, run: RunDirectory) -> Learner:
    from pipelines.engine.pixel_learner import PixelLearner

    return PixelLearner(experiment, competition, run)


_LEARNERS: dict[str, Callable[[Experiment, Competition, RunDirectory], Learner]] = {
    "text": _create_text_learner,
    "images": _create_image_learner,
    "articles": _create_sentence_learner,
    "segments": _create_encoder_learner,
    "table": _create_table_learner,
    "pixels": _create_pixel_learner,
}
