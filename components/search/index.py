"""A search index: a folder that holds articles, postings and vectors, and says what they were made of and with.

    index.json         version, corpus and its hash, encoder and its fingerprint, a digest of every other file
    vectors.npy        (N, D) float32 or float16        articles.sqlite   the text, dates, sources, topics
    terms.npy …        the postings (`lexical.py`)      folding.json      traditional -> simplified characters

It is written whole or not at all, needs nothing outside itself but its encoder, and refuses any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.files.atomic import atomic_folder, read_json, write_json
from components.files.digests import file_digest
from components.search.articles import ARTICLES_FILE, Article, ArticleStore, hash_articles, write_articles
from components.search.encoders import SentenceEncoder, encode_in_batches
from components.search.lexical import Bm25, Postings, build_postings, load_postings, merge_postings
from components.search.terms import list_terms
from components.search.text_folding import TextFolder
from components.search.vectors import (
    DTYPES,
    EXACT_LIMIT,
    Similarities,
    Vectors,
    open_similarities,
    open_vectors,
    write_faiss,
)

VERSION = 1
RECORD_FILE, VECTORS_FILE, FOLDING_FILE = "index.json", "vectors.npy", "folding.json"


@dataclass(frozen=True)
class IndexRecord:
    """What index.json says."""

    version: int
    corpus: str
    corpus_sha256: str
    encoder: str
    encoder_fingerprint: str
    dimension: int
    dtype: str
    num_articles: int
    dense_weight: float
    digests: dict[str, str]


@dataclass(frozen=True)
class SearchIndex:
    """An opened index; all of it may be used by many threads at once."""

    folder: Path
    record: IndexRecord
    content_sha256: str
    store: ArticleStore
    lexical: Bm25
    similarities: Similarities
    folding: TextFolder


@dataclass(frozen=True)
class _Content:
    """What is written into an index."""

    articles: Sequence[Article]
    vectors: Vectors | NDArray[Any]
    postings: Postings
    simplified: dict[str, str]


def article_text(article: Article) -> str:
    """What is searched: the title, then the body."""
    return f"{article.title}\n{article.body}" if article.title else article.body


def build_index(
    folder: Path,
    articles: Sequence[Article],
    encoder: SentenceEncoder,
    *,
    corpus: str,
    simplified: dict[str, str],
    dense_weight: float,
    dtype: str = "float32",
    on_progress: Callable[[int], None] | None = None,
) -> IndexRecord:
    """Index articles into `folder`, replacing what is there once all is written.

    Raises ValueError for a corpus that is empty or has an id twice, and for another `dtype` than DTYPES.
    """
    _check(articles, dtype)
    vectors = encode_in_batches(encoder, [article_text(one) for one in articles], on_progress=on_progress)
    postings = _postings(articles, TextFolder(simplified))
    content = _Content(articles, vectors.astype(dtype), postings, simplified)
    return _write(folder, content, encoder, corpus=corpus, dense_weight=dense_weight)


def add_articles(folder: Path, articles: Sequence[Article], encoder: SentenceEncoder) -> IndexRecord:
    """Append articles to an index, encoding these alone; the result equals an index built of all of them at once.

    Raises ValueError for another encoder than the index was made with, and for an id it has already.
    """
    index = open_index(folder, encoder=encoder)
    known = index.store.read_all()
    together = [*known, *articles]
    _check(together, index.record.dtype)
    fresh = encode_in_batches(encoder, [article_text(one) for one in articles]).astype(index.record.dtype)
    vectors = np.concatenate([open_vectors(folder / VECTORS_FILE), fresh])
    postings = merge_postings(index.lexical.postings, _postings(articles, index.folding))
    content = _Content(together, vectors, postings, index.folding.simplified)
    return _write(folder, content, encoder, corpus=index.record.corpus, dense_weight=index.record.dense_weight)


def open_index(
    folder: Path, *, encoder: SentenceEncoder | None = None, corpus_sha256: str | None = None
) -> SearchIndex:
    """Open an index, every file held against its digest.

    Raises ValueError for a missing, damaged or older index, for another encoder than it was made with, and where the
    corpus is no longer the one with hash `corpus_sha256`.
    """
    record = read_record(folder)
    _check_files(folder, record)
    if encoder is not None and encoder.fingerprint != record.encoder_fingerprint:
        raise ValueError(
            f"{folder}: made with the encoder {record.encoder} ({record.encoder_fingerprint[:12]}), not with "
            f"{encoder.name} ({encoder.fingerprint[:12]}); use that encoder, or index again"
        )
    if corpus_sha256 is not None and corpus_sha256 != record.corpus_sha256:
        raise ValueError(
            f"{folder}: made of another state of the corpus {record.corpus} ({record.corpus_sha256[:12]}, "
            f"now {corpus_sha256[:12]}); index again"
        )
    postings = load_postings(folder)
    vectors = open_vectors(folder / VECTORS_FILE)
    if not len(vectors) == postings.num_articles == record.num_articles:
        raise ValueError(f"{folder}: its files hold different numbers of articles; index again")
    return SearchIndex(
        folder,
        record,
        file_digest(folder / RECORD_FILE),
        ArticleStore(folder / ARTICLES_FILE),
        Bm25(postings),
        open_similarities(folder, vectors),
        TextFolder(read_json(folder / FOLDING_FILE)),
    )


def read_record(folder: Path) -> IndexRecord:
    """What an index says of itself. Raises ValueError where there is none, or one of another version."""
    if not (folder / RECORD_FILE).is_file():
        raise ValueError(f"{folder}: no index here")
    content = read_json(folder / RECORD_FILE)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ValueError(f"{folder / RECORD_FILE}: version {version!r}, but this program reads {VERSION}; index again")
    try:
        return IndexRecord(**content)
    except TypeError as error:
        raise ValueError(f"{folder / RECORD_FILE}: damaged ({error}); index again") from error


def _check(articles: Sequence[Article], dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"vectors of {dtype!r}: choose one of {', '.join(DTYPES)}")
    if not articles:
        raise ValueError("a corpus without articles cannot be indexed")
    seen: set[str] = set()
    for article in articles:
        if article.id in seen:
            raise ValueError(f"article {article.id}: two articles have this id")
        seen.add(article.id)


def _check_files(folder: Path, record: IndexRecord) -> None:
    for name, digest in record.digests.items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: missing from the index; index again")
        if file_digest(folder / name) != digest:
            raise ValueError(f"{folder / name}: damaged, its digest is not the one it was written with; index again")


def _postings(articles: Sequence[Article], folding: TextFolder) -> Postings:
    return build_postings(list_terms(folding.fold(article_text(article))) for article in articles)


def _write(
    folder: Path, content: "_Content", encoder: SentenceEncoder, *, corpus: str, dense_weight: float
) -> IndexRecord:
    with atomic_folder(folder) as partial:
        np.save(partial / VECTORS_FILE, content.vectors)
        content.postings.save(partial)
        write_articles(partial / ARTICLES_FILE, content.articles)
        write_json(partial / FOLDING_FILE, content.simplified)
        if len(content.vectors) > EXACT_LIMIT:
            write_faiss(content.vectors, partial)
        record = IndexRecord(
            version=VERSION,
            corpus=corpus,
            corpus_sha256=hash_articles(content.articles),
            encoder=encoder.name,
            encoder_fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            dtype=content.vectors.dtype.name,
            num_articles=len(content.articles),
            dense_weight=dense_weight,
            digests={path.name: file_digest(path) for path in sorted(partial.iterdir())},
        )
        write_json(partial / RECORD_FILE, asdict(record))
    return record
