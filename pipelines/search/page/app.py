"""The search page (`make app`). Streamlit runs this script anew at every click of every visitor.

What is dear to load is therefore kept by `st.cache_resource`, once per process for all sessions, keyed by where it lies
and what it holds.
"""

import logging
import os
import time
from collections.abc import Container
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import streamlit as st

from components.search.articles import Facets, Filters
from components.search.encoders import SentenceEncoder
from components.search.index import SearchIndex, read_record
from components.search.passages import Highlighter
from components.search.searching import MAX_QUERY, Result, search
from pipelines.errors import PodiumError
from pipelines.search.page import cards, desk
from pipelines.search.page.health import HEALTH
from pipelines.search.page.words import EXAMPLES, LANGUAGES, say
from pipelines.workspace import Workspace

ROOT_VARIABLE, URLS_VARIABLE = "PODIUM_SEARCH_ROOT", "PODIUM_ENCODER_URLS"
MODES = ("hybrid", "lexical", "dense")
PAGE, MOST = 10, 50
TONES = {"negative", "neutral", "positive"}
CACHED_QUERIES, CACHED_SECONDS = 500, 3600
ADDRESS_KEYS = ("lang", "corpus", "q", "mode", "topics", "sources", "from", "to")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What the visitor asks for; all of it stands in the address."""

    text: str
    mode: str
    filters: Filters
    limit: int


@st.cache_resource(max_entries=4, show_spinner=False)
def load_encoder(_folder: str, fingerprint: str, urls: tuple[str, ...]) -> SentenceEncoder:
    """One encoder per fingerprint, for all sessions."""
    return desk.load_encoder(workspace().root, read_record(Path(_folder)), urls)


@st.cache_resource(max_entries=4, show_spinner=False)
def load_index(folder: str, content: str, _encoder: SentenceEncoder) -> tuple[SearchIndex, Facets]:
    """One index per folder and content, for all sessions."""
    index = desk.load_index(Path(folder), _encoder)
    return index, index.store.facets()


@st.cache_data(max_entries=CACHED_QUERIES, ttl=CACHED_SECONDS, show_spinner=False)
def ask(_index: SearchIndex, _encoder: SentenceEncoder, content: str, question: Question) -> tuple[Result, float]:
    """The result, and the seconds it took when it was made."""
    started = time.perf_counter()
    with HEALTH.timed_search():
        result = search(
            _index, _encoder, question.text, mode=question.mode, filters=question.filters, limit=question.limit
        )
    return result, time.perf_counter() - started


def main() -> None:
    """The whole page."""
    st.set_page_config(page_title="podium search", page_icon="🔎", layout="centered")
    st.html(cards.STYLE)
    language = show_head()
    try:
        show_page(language)
    except Exception:
        # A visitor is told what helps; the log has the rest.
        _log.exception("the page failed")
        st.error(say(language, "failed"))
    st.html(cards.build_line("health", say(language, "health", **HEALTH.describe())))


def show_head() -> str:
    """The page's name and the choice of language, which it returns."""
    remember("lang", default="zh", allowed=LANGUAGES)
    language = st.session_state["lang"] or "zh"
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.html(cards.build_head(say(language, "title"), say(language, "subtitle")))
    right.segmented_control(
        say(language, "language"),
        list(LANGUAGES),
        format_func=lambda name: LANGUAGES[name],
        key="lang",
        label_visibility="collapsed",
    )
    return language


def show_page(language: str) -> None:
    """Everything below the head; the visitor's mistakes and the server's known ones end in a sentence."""
    served = {one.corpus: one for one in desk.list_served(workspace())}
    if not served:
        st.info(say(language, "no_index"))
        return
    wanted = st.query_params.get("corpus")
    if wanted is not None and wanted not in served:
        st.warning(say(language, "no_corpus", name=wanted[:40]))
    remember("corpus", default=next(iter(served)), allowed=served)
    corpus = choose_corpus(language, list(served))
    try:
        encoder, index, facets = open_corpus(served[corpus])
    except (PodiumError, ValueError) as error:
        _log.warning("%s", error)
        st.error(say(language, "no_encoder" if isinstance(error, PodiumError) else "broken", name=corpus))
        return
    if article := st.query_params.get("article"):
        show_article(language, corpus, index, article)
    else:
        show_search(language, served[corpus], index, encoder, facets)


def open_corpus(served: desk.Served) -> tuple[SentenceEncoder, SearchIndex, Facets]:
    """What a corpus is searched with, loaded by the first session that asks."""
    record = read_record(served.folder)
    encoder = load_encoder(str(served.folder), record.encoder_fingerprint, encoder_urls())
    return (encoder, *load_index(str(served.folder), served.content, encoder))


def choose_corpus(language: str, names: list[str]) -> str:
    """The corpus that is searched; filters of another one are forgotten."""
    chosen = st.segmented_control(
        say(language, "corpus"),
        names,
        format_func=lambda name: say(language, name),
        key="corpus",
        label_visibility="collapsed",
        on_change=forget_filters,
    )
    return str(chosen or names[0])


def show_search(
    language: str, served: desk.Served, index: SearchIndex, encoder: SentenceEncoder, facets: Facets
) -> None:
    """The question, its filters and its answer."""
    remember("q", default="")
    placeholder = say(language, "placeholder")
    text = st.text_input(
        say(language, "query"), key="q", placeholder=placeholder, label_visibility="collapsed", on_change=first_page
    )
    remember("mode", default=MODES[0], allowed=MODES)
    with st.sidebar:
        filters = choose_filters(language, facets)
    question = Question(text, st.session_state["mode"], filters, st.session_state.setdefault("n", PAGE))
    write_address(served.corpus, question)
    if not text.strip():
        show_examples(language, served.corpus)
        return
    try:
        result, seconds = ask(index, encoder, served.content, question)
    except PodiumError as error:
        _log.warning("%s", error)
        st.error(say(language, "no_encoder"))
    except ValueError:
        st.info(say(language, "empty_query"))
    else:
        show_result(language, served.corpus, question, result, seconds)


def choose_filters(language: str, facets: Facets) -> Filters:
    """The side of the page: ranking, topics, sources, dates; only what the corpus has."""
    st.subheader(say(language, "filters"))
    st.radio(say(language, "mode"), MODES, format_func=lambda mode: say(language, mode), key="mode", horizontal=True)
    topics = choose_many(language, "topics", facets.topics)
    sources = choose_many(language, "sources", facets.sources) if len(facets.sources) > 1 else ()
    first, last = choose_dates(language, facets) if facets.num_dated else (None, None)
    return Filters(first, last, sources, topics)


def choose_many(language: str, key: str, counts: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Some of a facet's values, each shown with its number of articles."""
    if not counts:
        return ()
    numbers = dict(counts)
    if key not in st.session_state:
        st.session_state[key] = [value for value in st.query_params.get_all(key) if value in numbers]
    shown = st.multiselect(
        say(language, "tones" if numbers.keys() <= TONES else key),
        list(numbers),
        format_func=lambda value: f"{say(language, value)} ({numbers[value]:,})",
        key=key,
        placeholder=say(language, "any"),
        on_change=first_page,
    )
    return tuple(shown)


def choose_dates(language: str, facets: Facets) -> tuple[date | None, date | None]:
    """A range of dates, or none."""
    assert facets.first_date is not None
    assert facets.last_date is not None
    if "dates" not in st.session_state:
        bounds = (read_date(st.query_params.get(key), facets) for key in ("from", "to"))
        st.session_state["dates"] = tuple(bound for bound in bounds if bound is not None)
    chosen = st.date_input(
        say(language, "dates"),
        key="dates",
        min_value=facets.first_date,
        max_value=facets.last_date,
        help=say(language, "dates_help", dated=facets.num_dated),
        on_change=first_page,
    )
    # A visitor who has chosen the first day only has chosen no range yet.
    return (chosen[0], chosen[1]) if isinstance(chosen, tuple) and len(chosen) == 2 else (None, None)


def show_examples(language: str, corpus: str) -> None:
    """What a visitor without a question may click."""
    st.html(cards.build_line("count", say(language, "start")))
    with st.container(horizontal=True):
        for example in EXAMPLES.get(corpus, ()):
            st.button(example, on_click=lambda text=example: st.session_state.update(q=text))


def show_result(language: str, corpus: str, question: Question, result: Result, seconds: float) -> None:
    """Cards, the best first."""
    if result.was_cut:
        st.warning(say(language, "cut", limit=MAX_QUERY))
    if not result.hits:
        st.info(say(language, "none"))
        return
    numbers = {"shown": len(result.hits), "admitted": result.num_admitted, "milliseconds": 1000 * seconds}
    st.html(cards.build_line("count", say(language, "found", **numbers)))
    scale = cards.scale_of(result.hits)
    for hit in result.hits:
        href = cards.link(address_of(corpus, question) | {"article": hit.article.id})
        st.html(cards.build_card(hit, scale, language=language, href=href))
    if len(result.hits) == question.limit < MOST:
        st.button(say(language, "more"), on_click=next_page)


def show_article(language: str, corpus: str, index: SearchIndex, article_id: str) -> None:
    """One article in full, reached by its permalink."""
    query = st.query_params.get("q", "")[:MAX_QUERY]
    asked: dict[str, str | list[str]] = {key: st.query_params.get_all(key) for key in ADDRESS_KEYS}
    back = cards.link(asked | {"lang": language, "corpus": corpus, "q": query})
    st.html(cards.build_back(say(language, "back"), back))
    row = index.store.find(article_id)
    if row is None:
        st.warning(say(language, "no_article"))
        return
    article = index.store.read([row])[0]
    highlighter = Highlighter(query, index.folding, rarity=index.lexical.rarity)
    title, body = highlighter.mark(article.title), highlighter.mark(article.body)
    st.html(cards.build_article(article, title, body, language=language))


def remember(key: str, *, default: str, allowed: Container[str] | None = None) -> None:
    """Take a widget's first value from the address."""
    if key not in st.session_state:
        value = st.query_params.get(key, default)
        st.session_state[key] = value if allowed is None or value in allowed else default


def write_address(corpus: str, question: Question) -> None:
    """Make the address a permalink to what is shown."""
    st.query_params.from_dict(address_of(corpus, question))


def address_of(corpus: str, question: Question) -> dict[str, str | list[str]]:
    """The address of a question's results, under ADDRESS_KEYS."""
    filters = question.filters
    values: dict[str, str | list[str]] = {"lang": st.session_state["lang"] or "zh", "corpus": corpus}
    values |= {"q": question.text[:MAX_QUERY]} if question.text else {}
    values |= {"mode": question.mode} if question.mode != MODES[0] else {}
    values |= {"topics": list(filters.topics)} if filters.topics else {}
    values |= {"sources": list(filters.sources)} if filters.sources else {}
    values |= {"from": filters.first_date.isoformat()} if filters.first_date else {}
    values |= {"to": filters.last_date.isoformat()} if filters.last_date else {}
    return values


def read_date(text: str | None, facets: Facets) -> date | None:
    """A date of the address, within the corpus's own; None for anything else."""
    try:
        found = date.fromisoformat(text or "")
    except ValueError:
        return None
    assert facets.first_date is not None
    assert facets.last_date is not None
    return min(max(found, facets.first_date), facets.last_date)


def first_page() -> None:
    """Another question begins with its best articles."""
    st.session_state["n"] = PAGE


def next_page() -> None:
    """Ten more articles."""
    st.session_state["n"] = min(MOST, st.session_state["n"] + PAGE)


def forget_filters() -> None:
    """Topics, sources and dates of another corpus mean nothing here."""
    first_page()
    for key in ("topics", "sources", "dates"):
        st.session_state.pop(key, None)
    st.query_params.clear()


def workspace() -> Workspace:
    """The checkout whose indexes are served."""
    return Workspace(Path(os.environ.get(ROOT_VARIABLE, ".")).resolve())


def encoder_urls() -> tuple[str, ...]:
    """Services that encode instead of this process."""
    return tuple(os.environ.get(URLS_VARIABLE, "").split())


main()
