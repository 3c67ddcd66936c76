"""A result as HTML. Every text is escaped here, whatever an article or a query holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from components.search.articles import Article
from components.search.passages import Piece
from components.search.searching import Hit
from pipelines.search.page.words import say

STYLE = """
<style>
.block-container { max-width: 62rem; padding-top: 3.4rem; }
.stAppHeader { background: transparent; }
.pod-head { margin: 0 0 .4rem; }
.pod-head h1 { font-size: 2.1rem; font-weight: 700; letter-spacing: .01em; padding: 0; margin: 0; line-height: 1.2; }
.pod-head p { color: #7a746a; margin: .15rem 0 0; font-size: .98rem; }
.pod-count { color: #7a746a; font-size: .86rem; margin: .2rem 0 .1rem; }
.pod-card { background: #fff; border: 1px solid #e8e3d9; border-radius: 12px; padding: 1rem 1.2rem .85rem;
  display: grid; grid-template-columns: 1fr 9.5rem; gap: .2rem 1.6rem; box-shadow: 0 1px 2px rgba(60, 50, 30, .05); }
.pod-card:hover { border-color: #d5ccba; box-shadow: 0 3px 10px rgba(60, 50, 30, .08); }
.pod-card h3 { font-size: 1.1rem; font-weight: 650; line-height: 1.4; margin: 0; padding: 0; overflow-wrap: anywhere; }
.pod-card h3 a { color: #1f1d1a; text-decoration: none; }
.pod-card h3 a:hover { color: #a63d2a; }
.pod-facts { font-size: .8rem; color: #7a746a; margin: .2rem 0 .45rem; }
.pod-facts span { display: inline-block; margin-right: .5rem; }
.pod-facts .pod-topic { background: #f1ece2; color: #6a5a3c; border-radius: 99px; padding: .02rem .6rem; }
.pod-facts .negative { background: #f7e4e0; color: #96311f; }
.pod-facts .positive { background: #e3efe4; color: #2f6a3a; }
.pod-card p, .pod-article p { font-size: .95rem; line-height: 1.7; color: #3b372f; margin: 0 0 .2rem;
  overflow-wrap: anywhere; }
.pod-card mark, .pod-article mark { background: #ffe7a8; color: inherit; border-radius: 3px; padding: 0 .08em; }
.pod-bars { font-size: .74rem; color: #7a746a; padding-top: .25rem; }
.pod-bars div { display: flex; justify-content: space-between; margin-bottom: .12rem; }
.pod-bars i { display: block; height: 5px; border-radius: 3px; background: #eee8dc; margin-bottom: .5rem; }
.pod-bars b { display: block; height: 5px; border-radius: 3px; background: #c9b98f; }
.pod-bars .pod-total b { background: #a63d2a; }
.pod-article p { margin-bottom: .8rem; }
.pod-article { background: #fff; border: 1px solid #e8e3d9; border-radius: 12px; padding: 1.6rem 2rem; }
.pod-article h2 { font-size: 1.5rem; line-height: 1.4; padding: 0; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.pod-health { color: #9a9387; font-size: .76rem; border-top: 1px solid #e8e3d9; padding-top: .6rem; margin-top: 1.6rem;
  font-variant-numeric: tabular-nums; }
.pod-back { font-size: .9rem; } .pod-back a { color: #a63d2a; text-decoration: none; }
@media (max-width: 640px) { .pod-card { grid-template-columns: 1fr; } .pod-bars { display: none; } }
</style>
"""


@dataclass(frozen=True)
class Scale:
    """What fills a bar: the best score of a result. The total of a hybrid has no zero, so its worst fills a tenth."""

    best: float
    worst: float
    best_bm25: float


def scale_of(hits: Sequence[Hit]) -> Scale:
    """The scale of one result's bars."""
    totals = [hit.score for hit in hits]
    return Scale(max(totals, default=0.0), min(totals, default=0.0), max((hit.bm25 for hit in hits), default=0.0))


def link(parameters: Mapping[str, str | list[str]]) -> str:
    """A permalink to a state of the page."""
    return "?" + urlencode({key: value for key, value in parameters.items() if value}, doseq=True)


def build_card(hit: Hit, scale: Scale, *, language: str, href: str) -> str:
    """One result."""
    span = scale.best - scale.worst
    total = 0.1 + 0.9 * (hit.score - scale.worst) / span if span > 0 else 1.0
    words = hit.bm25 / scale.best_bm25 if scale.best_bm25 > 0 else 0.0
    bars = _bar(say(language, "score"), f"{hit.score:.2f}", total, "pod-total")
    bars += _bar(say(language, "lexical"), f"{hit.bm25:.1f}", words)
    bars += _bar(say(language, "dense"), f"{hit.cosine:.2f}", hit.cosine)
    return (
        f'<div class="pod-card"><div><h3><a href="{escape(href)}" target="_self">{_marked(hit.title)}</a></h3>'
        f"{_facts(hit.article, language)}<p>{_marked(hit.passage)}</p></div>"
        f'<div class="pod-bars">{bars}</div></div>'
    )


def build_article(article: Article, title: Iterable[Piece], body: Iterable[Piece], *, language: str) -> str:
    """A whole article, its matches marked, a paragraph per line."""
    paragraphs = "".join(f"<p>{line}</p>" for line in _marked(body).split("\n") if line.strip())
    return f'<div class="pod-article"><h2>{_marked(title)}</h2>{_facts(article, language)}{paragraphs}</div>'


def build_line(kind: str, text: str) -> str:
    """A line of plain text in one of the page's styles."""
    return f'<div class="pod-{kind}">{escape(text)}</div>'


def build_head(title: str, subtitle: str) -> str:
    """The page's name."""
    return f'<div class="pod-head"><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div>'


def build_back(text: str, href: str) -> str:
    """The way from an article to the results."""
    return f'<div class="pod-back"><a href="{escape(href)}" target="_self">{escape(text)}</a></div>'


def _marked(pieces: Iterable[Piece]) -> str:
    return "".join(f"<mark>{escape(piece.text)}</mark>" if piece.is_match else escape(piece.text) for piece in pieces)


def _facts(article: Article, language: str) -> str:
    plain = "".join(f"<span>{escape(fact)}</span>" for fact in (article.date, article.source) if fact)
    kind = escape(article.topic)
    topic = f'<span class="pod-topic {kind}">{escape(say(language, article.topic))}</span>' if kind else ""
    return f'<div class="pod-facts">{topic}{plain}</div>'


def _bar(name: str, value: str, share: float, kind: str = "") -> str:
    width = 100 * min(1.0, max(0.0, share))
    label = f"<div><span>{escape(name)}</span><span>{value}</span></div>"
    return f'{label}<i class="{kind}"><b style="width:{width:.0f}%"></b></i>'
