"""What search knows of a corpus, and the table of those there are."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from components.nearest import did_you_mean
from components.search.articles import Article
from pipelines.errors import PodiumError

CORPORA = ("chinese_news", "english_news", "lee")

Relevance = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """A corpus by its name; its functions read a package and raise `PodiumError` where it is missing.

    `load_evaluated` gives the articles whose titles ask for their own bodies, none of which anything here is trained
    on; with `load_relevance` every article asks for the others instead, whose gains are the rows of a matrix (N, N).
    `dense_weight` is what `podium search evaluate` tuned on half of the questions.
    """

    name: str
    title: str
    package: str
    encoder: str
    dense_weight: float
    load: Callable[[], list[Article]]
    load_evaluated: Callable[[], list[Article]]
    load_relevance: Callable[[], Relevance] | None = None


def load_corpus(name: str) -> Corpus:
    """The corpus of a name; a PodiumError for an unknown one."""
    if name not in CORPORA:
        hint = did_you_mean(name, CORPORA, f"choose one of {', '.join(CORPORA)}")
        raise PodiumError(f"corpus {name!r}: no such corpus{hint}")
    corpus = import_module(f"pipelines.search.corpora.{name}").CORPUS
    assert isinstance(corpus, Corpus)
    return corpus
