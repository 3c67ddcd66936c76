"""Rows as texts: the one place where a competition's prompt is built, for training, prediction and vocabularies."""

from pandas import DataFrame

from pipelines.competitions.competition import Competition


def build_prompts(competition: Competition, frame: DataFrame) -> list[str]:
    """The prompt of each row of canonical columns."""
    rows = ({str(key): value for key, value in row.items()} for row in frame.to_dict("records"))
    return [competition.build_prompt(row) for row in rows]


def list_texts(competition: Competition, train: DataFrame, test: DataFrame) -> list[str]:
    """Everything of a competition that a vocabulary must spell: prompts of train and test, and labels that are text."""
    labels = train["label"].tolist() if competition.task == "text_to_text" else []
    return [*build_prompts(competition, train), *build_prompts(competition, test), *labels]
