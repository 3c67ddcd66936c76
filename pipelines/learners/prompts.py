"""Rows as texts: the one place where a competition's prompt is built, for training, prediction and vocabularies."""

from pandas import DataFrame

from pipelines.competitions.competition import Competition
from pipelines.competitions.frame_columns import restore_names
from pipelines.competitions.loading import load_competition
from pipelines.config.schema import Experiment
from pipelines.config.sections.bert import Segments
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace


def build_prompts(competition: Competition, frame: DataFrame) -> list[str]:
    """The prompt of each row of canonical columns; it speaks of columns by the names that the files give them."""
    names = competition.frame_columns
    rows = ({str(key): value for key, value in row.items()} for row in frame.to_dict("records"))
    return [competition.build_prompt(restore_names(row, names)) for row in rows]


def list_texts(competition: Competition, train: DataFrame, test: DataFrame) -> list[str]:
    """Everything of a competition that a vocabulary must spell: prompts of train and test, and labels that are text."""
    labels = train["label"].tolist() if competition.task == "text_to_text" else []
    return [*build_prompts(competition, train), *build_prompts(competition, test), *labels]


def build_segments(competition: Competition, frame: DataFrame, data: Segments) -> tuple[list[str], list[str] | None]:
    """The text of each row, and its second segment where `data` names one. Raises ConfigError for no such column."""
    for name in (data.first_column, data.second_column):
        if name is not None and name not in competition.input_columns:
            columns = ", ".join(competition.input_columns)
            raise ConfigError(f"data: {name} is no input column of {competition.name}; there are {columns}")
    inputs = competition.inputs(frame)
    first = build_prompts(competition, frame) if data.first_column is None else inputs[data.first_column].tolist()
    return first, None if data.second_column is None else inputs[data.second_column].tolist()


def list_companion_texts(workspace: Workspace, experiment: Experiment) -> list[str]:
    """The texts of the competition that `data.trim_for` names; none without one."""
    name = getattr(experiment.data, "trim_for", None)
    if name is None:
        return []
    other = load_competition(name)
    folder = workspace.data_dir(other.kaggle_slug)
    return list_texts(other, other.load_train(folder), other.load_test(folder))
