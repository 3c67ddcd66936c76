"""One ranking from several: reciprocal ranks, which need no tuning, or weighted standardised scores, which repay it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

RANK_CONSTANT = 60
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))


def fuse_ranks(first: Scores, second: Scores, *, constant: float = RANK_CONSTANT) -> Scores:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): the sum of 1 / (constant + rank).

    (N,) each; higher is better; equal scores share the middle of their ranks.
    """
    return (1 / (constant + middle_ranks(first)) + 1 / (constant + middle_ranks(second))).astype(np.float32)


def fuse_scores(lexical: Scores, dense: Scores, *, dense_weight: float) -> Scores:
    """(1 - w) and w times both scores, each with mean 0 and deviation 1 over the articles."""
    return (1 - dense_weight) * standardise(lexical) + dense_weight * standardise(dense)


def standardise(scores: Scores) -> Scores:
    """Mean 0 and deviation 1; zeros where all scores are equal."""
    deviation = float(scores.std())
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)


def middle_ranks(scores: Scores) -> NDArray[np.float64]:
    """(N,) ranks from 1, the best first; equal scores share the mean of the ranks they fill."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(scores) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(scores)))
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def tune_weight(quality: Callable[[float], float], weights: Sequence[float] = WEIGHTS) -> float:
    """The weight of highest quality; of equal ones the smallest."""
    return max(weights, key=lambda weight: (quality(weight), -weight))
