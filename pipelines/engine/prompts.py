"""Rows as texts: the one place where a competition's prompt is built, for training, prediction and vocabularies."""

from pandas import DataFrame

from pipelines.competitions.competition import Competition, load_competition
from pipelines.config.schema import Experiment
from pipelines.config.workspace import Workspace


def build_prompts(competition: Competition, frame: DataFrame) -> list[str]:
    """The prompt of each row of canonical columns."""
    rows = ({str(key): value for key, value in row.items()} for row in frame.to_dict("records"))
    return [competition.build_prompt(row) for row in rows]


def list_texts(competition: Competition, train: DataFrame, test: DataFrame) -> list[str]:
    """Everything of a competition that a vocabulary must spell: prompts of train and test, and labels that are text."""
    labels = train["label"].tolist() if competition.task == "text_to_text" else []
    return [*build_prompts(competition, train), *build_prompts(competition, test), *labels]


def list_companion_texts(workspace: Workspace, experiment: Experiment) -> list[str]:
    """The texts of the competition that `data.trim_for` names; none without one."""
    name = getattr(experiment.data, "trim_for", None)
    if name is None:
        return []
    other = load_competition(name)
    folder = workspace.data_dir(other.kaggle_slug)
    return list_texts(other, other.load_train(folder), other.load_test(folder))
