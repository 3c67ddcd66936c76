"""How good a ranking is: known-item search (one right answer) and graded relevance; equal scores rank in the middle."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.search.fusion import middle_ranks

DEPTH = 10


def rank_of(scores: NDArray[np.float32], row: int) -> float:
    """The rank of one article, from 1; among equal scores the middle of theirs, so that all zeros are no success."""
    better = int((scores > scores[row]).sum())
    equal = int((scores == scores[row]).sum())
    return better + (equal + 1) / 2


def known_item_metrics(ranks: Sequence[float]) -> dict[str, float]:
    """`mrr@10` (0 beyond rank 10), `recall@1` and `recall@10` over queries."""
    values = np.asarray(ranks, np.float64)
    return {
        "mrr@10": float(np.mean(np.where(values <= DEPTH, 1 / values, 0))),
        "recall@1": float(np.mean(values <= 1)),
        "recall@10": float(np.mean(values <= DEPTH)),
    }


def ndcg(scores: NDArray[np.float32], gains: NDArray[np.float64], *, depth: int = DEPTH) -> float:
    """nDCG@depth with linear gains (Järvelin and Kekäläinen, 2002); equal scores share the gain of their ranks.

    A query that nothing is relevant to counts as 1.
    """
    ideal = float(np.sort(gains)[::-1][:depth] @ _discounts(len(gains), depth)[:depth])
    if ideal <= 0:
        return 1.0
    discounts = np.zeros(len(scores))
    ranks = middle_ranks(scores)
    for rank in np.unique(ranks):
        where = ranks == rank
        first = round(rank - (where.sum() - 1) / 2) - 1
        discounts[where] = _discounts(len(gains), depth)[first : first + where.sum()].mean()
    return float(gains @ discounts) / ideal


def cut_title(title: str, body: str) -> str:
    """The body without the title's verbatim repeats, whatever their capitals and spacing."""
    parts = title.split()
    if not parts:
        return body
    repeat = re.compile(r"\s+".join(map(re.escape, parts)), re.IGNORECASE)
    return " ".join(repeat.sub(" ", body).split())


def mean_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric."""
    return {name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]}


def _discounts(length: int, depth: int) -> NDArray[np.float64]:
    discounts = 1 / np.log2(np.arange(2, length + 2))
    discounts[depth:] = 0
    return discounts
