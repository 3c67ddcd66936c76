"""Cosine similarity of one query with every article: vectors in a memory-mapped file, by matrix product or by FAISS.

Up to a million articles the product over all of them is exact and fast enough (a million of 384 numbers is 0.8 GB in
float16 and is read at the speed of memory). Beyond that FAISS looks into the nearest cells only.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

EXACT_LIMIT = 1_000_000
DTYPES = ("float32", "float16")
# Rows of a float16 file that are widened at a time: 16 MB at 512 numbers each.
BLOCK = 8192
FAISS_FILE = "vectors.faiss"
FAISS_CANDIDATES = 2000

Vectors = NDArray[np.float32] | NDArray[np.float16]


class Similarities(Protocol):
    """What a search asks of the vectors."""

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of each article (N,) with the query (D,), both normalised; articles not looked at share the least."""


class ExactVectors:
    """Every article, block by block; (N, D), float32 or float16 on the disk, float32 in the product."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.vectors.dtype == np.float32:
            return np.asarray(self.vectors @ query, np.float32)
        result = np.empty(len(self.vectors), np.float32)
        for start in range(0, len(self.vectors), BLOCK):
            result[start : start + BLOCK] = self.vectors[start : start + BLOCK].astype(np.float32) @ query
        return result


class FaissVectors:
    """The best candidates of an inverted-file index; all other articles score just below the least of them."""

    def __init__(self, index: Any, num_articles: int, *, candidates: int = FAISS_CANDIDATES) -> None:  # noqa: ANN401 - faiss has no types
        self._index = index
        self._num_articles = num_articles
        self._candidates = min(candidates, num_articles)

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        found, rows = self._index.search(query[None], self._candidates)
        is_row = rows[0] >= 0
        below = np.nextafter(found[0][is_row].min(initial=1.0), np.float32(-2))
        result = np.full(self._num_articles, below, np.float32)
        result[rows[0][is_row]] = found[0][is_row]
        return result


def open_vectors(file: Path) -> Vectors:
    """Map a file of vectors (N, D). Raises ValueError for anything else."""
    try:
        vectors: Vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: unreadable as vectors ({error})") from error
    if vectors.ndim != 2 or vectors.dtype.name not in DTYPES:
        raise ValueError(
            f"{file}: holds {vectors.dtype} {vectors.shape}, not (articles, numbers) of {' or '.join(DTYPES)}"
        )
    return vectors


def open_similarities(folder: Path, vectors: Vectors) -> Similarities:
    """FAISS's index where `folder` has one, else the exact product."""
    file = folder / FAISS_FILE
    if not file.is_file():
        return ExactVectors(vectors)
    index = _import_faiss().read_index(str(file))
    if index.ntotal != len(vectors):
        raise ValueError(f"{file}: holds {index.ntotal} vectors, not {len(vectors)}")
    return FaissVectors(index, len(vectors))


def write_faiss(vectors: Vectors, folder: Path, *, probes: int = 32) -> None:
    """Train and write an inverted file of about 4 sqrt(N) cells; the same vectors give the same file."""
    faiss = _import_faiss()
    num_cells = max(1, min(len(vectors) // 39, round(4 * len(vectors) ** 0.5)))
    width = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, num_cells, faiss.METRIC_INNER_PRODUCT)
    sample = np.linspace(0, len(vectors) - 1, min(len(vectors), 64 * num_cells)).astype(np.int64)
    index.train(np.asarray(vectors[sample], np.float32))
    for start in range(0, len(vectors), BLOCK):
        index.add(np.asarray(vectors[start : start + BLOCK], np.float32))
    index.nprobe = min(probes, num_cells)
    faiss.write_index(index, str(folder / FAISS_FILE))


def _import_faiss() -> Any:  # noqa: ANN401 - faiss has no types
    try:
        import faiss
    except ImportError as error:
        raise ValueError(
            f"more than {EXACT_LIMIT:,} articles are searched with FAISS, which is missing: pip install faiss-cpu"
        ) from error
    return faiss
