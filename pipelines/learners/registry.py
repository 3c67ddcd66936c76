"""Which learner trains which model: the one table."""

from collections.abc import Callable

from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.learners.learner import Learner
from pipelines.runs.run import Run


def create_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    """The learner of the experiment's model."""
    return _LEARNERS[experiment.data.name](experiment, competition, run)


def _create_t5_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.t5 import T5Learner  # torch takes two seconds, which a table model can do without

    return T5Learner(experiment, competition, run)


def _create_xcit_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.xcit import XCiTLearner

    return XCiTLearner(experiment, competition, run)


def _create_sentence_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.sentence import SentenceLearner

    return SentenceLearner(experiment, competition, run)


def _create_bert_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.bert import BertLearner

    return BertLearner(experiment, competition, run)


def _create_table_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.tables import TableLearner

    return TableLearner(experiment, competition, run)


def _create_pixel_learner(experiment: Experiment, competition: Competition, run: Run) -> Learner:
    from pipelines.learners.pixels import PixelLearner

    return PixelLearner(experiment, competition, run)


_LEARNERS: dict[str, Callable[[Experiment, Competition, Run], Learner]] = {
    "text": _create_t5_learner,
    "images": _create_xcit_learner,
    "articles": _create_sentence_learner,
    "segments": _create_bert_learner,
    "table": _create_table_learner,
    "pixels": _create_pixel_learner,
}
