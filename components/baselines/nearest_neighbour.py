"""The floor under any text-to-text model: repeat what the most similar training text was answered."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

# Rows of the test side per product: bounds the memory of the similarities, about 60 MB at 100,000 training texts.
BLOCK_SIZE = 256


class NearestNeighbour:
    """One nearest neighbour by cosine over TF-IDF of character n-grams; of equally near ones the first is taken."""

    def __init__(self, *, min_ngram: int = 2, max_ngram: int = 3) -> None:
        """Single letters say little about which text it is, and cost most of the time: nearly all texts share them."""
        # n-grams stay inside words and see their edges, so "San" in "San José" is not the "san" of "Thousand".
        self._vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(min_ngram, max_ngram), sublinear_tf=True, dtype=np.float64
        )
        self._targets: list[str] = []
        self._known: csr_matrix | None = None

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> "NearestNeighbour":
        self._known = csr_matrix(self._vectorizer.fit_transform(sources)).T.tocsr()
        self._targets = list(targets)
        return self

    def predict(self, sources: Sequence[str]) -> list[str]:
        """The target of the most similar training source; the first training target where nothing is shared."""
        assert self._known is not None, "predict needs fit first"
        queries = csr_matrix(self._vectorizer.transform(sources))
        nearest: list[int] = []
        for start in range(0, queries.shape[0], BLOCK_SIZE):
            nearest.extend(_first_best(queries[start : start + BLOCK_SIZE] @ self._known))
        return [self._targets[index] for index in nearest]


def _first_best(similarities: csr_matrix) -> list[int]:
    """The column of each row's greatest value, of equal ones the first, and 0 for an empty row.

    scipy's argmax sorts every row before it looks, which costs more than the product itself.
    """
    # Rounded, or texts equally near would be told apart by the order in which a machine adds.
    values = np.round(similarities.data, 9)
    best = []
    for start, end in pairwise(similarities.indptr.tolist()):
        row = values[start:end]
        columns = similarities.indices[start:end]
        best.append(int(columns[row == row.max()].min()) if end > start else 0)
    return best
