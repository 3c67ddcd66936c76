"""BM25 over postings that lie in memory-mapped arrays: no dictionary of terms is ever held.

A term is known by eight bytes of its hash; the sorted array of hashes is the vocabulary. Counts are stored, not
weights, since adding one article changes every weight; a query computes those of its own terms, in microseconds each.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), equation 3.15; the
inverse document frequency is Lucene's, ln(1 + (N - n + 0.5) / (n + 0.5)), which no frequent term makes negative.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K1, B = 1.2, 0.75
MAX_COUNT = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Postings:
    """For T terms and N articles: article and count of each of P (term, article) pairs, by term, then article."""

    terms: NDArray[np.uint64]  # (T,), ascending
    offsets: NDArray[np.int64]  # (T + 1,)
    articles: NDArray[np.int32]  # (P,)
    counts: NDArray[np.uint16]  # (P,)
    lengths: NDArray[np.int32]  # (N,) terms of each article, with repeats

    @property
    def num_articles(self) -> int:
        return len(self.lengths)

    def save(self, folder: Path) -> None:
        """One .npy file per array."""
        for name in POSTING_FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))

    def articles_of(self, term: np.uint64) -> slice:
        """Where a term's pairs lie; an empty slice for a term that no article has."""
        place = int(np.searchsorted(self.terms, term))
        if place == len(self.terms) or self.terms[place] != term:
            return slice(0, 0)
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))


POSTING_FILES = tuple(field.name for field in fields(Postings))


def load_postings(folder: Path) -> Postings:
    """The arrays that `Postings.save` wrote, mapped and not read. Raises ValueError where they do not fit together."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in POSTING_FILES}
    postings = Postings(**arrays)
    if len(postings.offsets) != len(postings.terms) + 1 or postings.offsets[-1] != len(postings.articles):
        raise ValueError(f"{folder}: its postings do not fit together")
    return postings


def build_postings(articles: Iterable[Sequence[str]]) -> Postings:
    """Postings of articles given as their terms."""
    ids: dict[str, int] = {}
    pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    lengths: list[int] = []
    for terms in articles:
        counted = Counter(terms)
        known = (ids.setdefault(term, len(ids)) for term in counted)
        pairs.append(
            (np.fromiter(known, np.int64, len(counted)), np.fromiter(counted.values(), np.int64, len(counted)))
        )
        lengths.append(len(terms))
    hashes = np.fromiter((hash_term(term) for term in ids), np.uint64, len(ids))
    articles_of_pairs = np.repeat(np.arange(len(pairs)), [len(terms) for terms, _ in pairs])
    term_ids = np.concatenate([terms for terms, _ in pairs]) if pairs else np.empty(0, np.int64)
    counts = np.concatenate([counts for _, counts in pairs]) if pairs else np.empty(0, np.int64)
    return _collect(hashes[term_ids], articles_of_pairs, counts, np.array(lengths, np.int32))


def merge_postings(first: Postings, second: Postings) -> Postings:
    """Postings of `first`'s articles followed by `second`'s: what building them together would give, bit for bit."""
    hashes = [np.repeat(part.terms, np.diff(part.offsets)) for part in (first, second)]
    articles = np.concatenate([first.articles, second.articles + first.num_articles])
    counts = np.concatenate([first.counts, second.counts])
    return _collect(np.concatenate(hashes), articles, counts, np.concatenate([first.lengths, second.lengths]))


def hash_term(term: str) -> int:
    """64 bits of a term. Among a million terms two share theirs with a probability of 3e-8."""
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Bm25:
    """Scores of all articles for the terms of a query."""

    def __init__(self, postings: Postings, *, k1: float = K1, b: float = B) -> None:
        self.postings = postings
        self._k1 = k1
        mean = max(1.0, float(np.mean(postings.lengths))) if postings.num_articles else 1.0
        self._length_norm = (k1 * (1 - b + b * postings.lengths / mean)).astype(np.float32)  # (N,)

    def scores(self, terms: Iterable[str]) -> NDArray[np.float32]:
        """(N,); each distinct term of the query counts once, an article without any of them has 0."""
        total = np.zeros(self.postings.num_articles, np.float32)
        for term in dict.fromkeys(terms):
            where = self.postings.articles_of(np.uint64(hash_term(term)))
            articles = self.postings.articles[where]
            if len(articles):
                counts = self.postings.counts[where].astype(np.float32)
                weight = np.float32(self._idf(len(articles)) * (self._k1 + 1))
                total[articles] += weight * counts / (counts + self._length_norm[articles])
        return total

    def rarity(self, term: str) -> float:
        """A term's inverse document frequency; 0 for one that no article has."""
        where = self.postings.articles_of(np.uint64(hash_term(term)))
        return self._idf(where.stop - where.start) if where.stop > where.start else 0.0

    def _idf(self, num_articles: int) -> float:
        return float(np.log1p((self.postings.num_articles - num_articles + 0.5) / (num_articles + 0.5)))


def _collect(
    hashes: NDArray[np.uint64], articles: NDArray[np.int64], counts: NDArray[np.int64], lengths: NDArray[np.int32]
) -> Postings:
    order = np.lexsort((articles, hashes))
    hashes = hashes[order]
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]]) if len(hashes) else np.empty(0, np.int64)
    return Postings(
        terms=hashes[starts],
        offsets=np.append(starts, len(hashes)).astype(np.int64),
        articles=articles[order].astype(np.int32),
        counts=np.minimum(counts[order], MAX_COUNT).astype(np.uint16),
        lengths=lengths.astype(np.int32),
    )
