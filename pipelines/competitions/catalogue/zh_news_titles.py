"""Which article does a headline belong to? Chinese web news, whose bodies stand in another order than their titles.

Training rows are whole: title and body belong together. Test rows are the evaluated pages of `inews`, each with
another's body; the answer for a title is the id of the row that its body stands in, or ten of them, the likeliest
first. Verbatim repeats of the title are cut from every body, of which the first 2,000 characters are kept.
"""

import pandas as pd

from components.search.evaluation import cut_title
from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, hash_share, row_id, usage_of, write_tables
from pipelines.competitions.sources.inews import PACKAGE, Page, distinct_pages, evaluated_pages
from pipelines.packages import find_package

NUM_GUESSES = 10
KEPT_CHARACTERS = 2000
BASELINE_CHARACTERS = 150


def prepare(folders: PreparationFolders) -> None:
    """Write the competition from the installed package."""
    _, source = find_package(PACKAGE)
    evaluated = evaluated_pages()
    asked = {page.key for page in evaluated}
    train = [page for page in distinct_pages(("train",)) if page.key not in asked]
    write_tables(build_tables(train, evaluated), folders, source=source)


def build_tables(train: list[Page], evaluated: list[Page]) -> EmbeddedTables:
    """Rows in the order of their ids; bodies of the test in the order of another hash."""
    train, evaluated = _in_order(train), _in_order(evaluated)
    shuffled = sorted(evaluated, key=lambda page: hash_share(page.key, "zh_news_titles"))
    ids = [row_id(page.key) for page in evaluated]
    assert len({*ids, *(row_id(page.key) for page in train)}) == len(ids) + len(train), "lengthen row_id"
    holder = {page.key: row for page, row in zip(shuffled, ids, strict=True)}
    test = pd.DataFrame({"id": ids, "title": [page.title for page in evaluated], "body": list(map(_body, shuffled))})
    solution = pd.DataFrame(
        {
            "id": ids,
            "article": [holder[page.key] for page in evaluated],
            "usage": [usage_of(page.key) for page in evaluated],
        }
    )
    own = [row_id(page.key) for page in train]
    whole = pd.DataFrame(
        {"id": own, "title": [page.title for page in train], "body": list(map(_body, train)), "article": own}
    )
    sample = pd.DataFrame({"id": ids, "article": ids})
    return EmbeddedTables(whole, test, sample, solution, {"bm25": _by_terms(test)})


def _in_order(pages: list[Page]) -> list[Page]:
    # A body that is nothing but its title repeated asks for nothing
    return sorted((page for page in pages if _body(page)), key=lambda page: row_id(page.key))


def _body(page: Page) -> str:
    return cut_title(page.title, page.body)[:KEPT_CHARACTERS].strip()


def _by_terms(test: pd.DataFrame) -> pd.DataFrame:
    """BM25 over the characters, their pairs and the words of each body's beginning."""
    import numpy as np

    from components.search.lexical import Bm25, build_postings
    from components.search.terms import list_terms

    index = Bm25(build_postings(list_terms(body[:BASELINE_CHARACTERS].lower()) for body in test["body"]))
    ids = test["id"].to_numpy()
    answers = []
    for title in test["title"]:
        order = np.argsort(-index.scores(list_terms(title.lower())), kind="stable")
        answers.append(" ".join(ids[order[:NUM_GUESSES]]))
    return pd.DataFrame({"id": test["id"], "article": answers})


COMPETITION = Competition(
    name="zh_news_titles",
    title="Chinese headlines and their articles",
    task="text_to_text",
    kaggle_slug="zh-news-titles",
    host="local",
    id_column="id",
    input_columns=("title", "body"),
    label_columns=("article",),
    metric="mrr_at_10",
    extra_metrics=("recall_at_1",),
    folds=FoldDefaults(name="holdout", valid_fraction=0.08),
    prepare=prepare,
)
