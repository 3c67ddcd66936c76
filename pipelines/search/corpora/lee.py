"""Fifty short news items and how alike people found each two of them, which travel among gensim's test data.

Source: Lee, Pincombe and Welsh, "An empirical evaluation of models of text document similarity" (CogSci 2005). gensim
itself is neither needed nor imported: `pip install --no-deps gensim==4.4.0` brings the files.
"""

from pathlib import Path

import numpy as np

from components.search.articles import Article
from pipelines.errors import PodiumError
from pipelines.packages import find_package_folder
from pipelines.search.corpora.corpus import Corpus, Relevance

PACKAGE = "gensim"
NUM_ITEMS = 50
BACKGROUND_FILE, ITEMS_FILE, SIMILARITIES_FILE = "lee_background.cor", "lee.cor", "similarities0-1.txt"
# Pairs that people call unrelated are rated about 0.2 to 0.3.
UNRELATED = 0.3


def load() -> list[Article]:
    """The fifty items and the 300 of the background corpus."""
    return [*load_items(), *_read(BACKGROUND_FILE, "background")]


def load_items() -> list[Article]:
    """The fifty items that were rated."""
    return _read(ITEMS_FILE, "item")


def load_relevance() -> Relevance:
    """(50, 50): the mean rating beyond `UNRELATED`, symmetric, 0 on the diagonal."""
    upper = np.loadtxt(_file(SIMILARITIES_FILE))
    if upper.shape != (NUM_ITEMS, NUM_ITEMS):
        raise PodiumError(f"{_file(SIMILARITIES_FILE)}: holds {upper.shape} numbers, not {NUM_ITEMS} x {NUM_ITEMS}")
    upper = np.triu(upper, 1)
    return np.maximum(upper + upper.T - UNRELATED, 0.0) * (1 - np.eye(NUM_ITEMS))


def _read(name: str, kind: str) -> list[Article]:
    lines = _file(name).read_text(encoding="latin-1").splitlines()
    return [Article(f"{kind}{number}", "", line.strip()) for number, line in enumerate(filter(str.strip, lines))]


def _file(name: str) -> Path:
    file = find_package_folder(PACKAGE) / "test/test_data" / name
    if not file.is_file():
        raise PodiumError(f"{file}: missing; gensim 4.4.0 has it")
    return file


CORPUS = Corpus(
    name="lee",
    title="Lee corpus",
    package=PACKAGE,
    encoder="minilm",
    dense_weight=0.65,
    load=load,
    load_evaluated=load_items,
    load_relevance=load_relevance,
)
