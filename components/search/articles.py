"""Articles, and the SQLite file that keeps them beside an index; opened read-only, once per question."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ARTICLES_FILE = "articles.sqlite"


@dataclass(frozen=True)
class Article:
    """One document; `date` is ISO (2018-12-27), and what is not known is empty."""

    id: str
    title: str
    body: str
    date: str = ""
    source: str = ""
    topic: str = ""


@dataclass(frozen=True)
class Filters:
    """What an article must be; an empty field admits all, a date bound only articles that have a date."""

    first_date: date | None = None
    last_date: date | None = None
    sources: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self == Filters()


@dataclass(frozen=True)
class Facets:
    """The choices that filters have: each source and topic with its number of articles, and the range of dates."""

    sources: tuple[tuple[str, int], ...]
    topics: tuple[tuple[str, int], ...]
    first_date: date | None
    last_date: date | None
    num_dated: int


COLUMNS = tuple(field.name for field in fields(Article))
_CREATE = """
create table articles (row integer primary key, {columns});
create index by_date on articles (date) where date <> '';
create index by_source on articles (source);
create index by_topic on articles (topic);
""".format(columns=", ".join(f"{name} text not null" for name in COLUMNS))


def hash_articles(articles: Iterable[Article]) -> str:
    """sha256 over every field of every article, in order: the same corpus, the same hash."""
    digest = sha256()
    for article in articles:
        digest.update(json.dumps(astuple(article), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def write_articles(file: Path, articles: Iterable[Article]) -> None:
    """Write a new store; rows count from 0 in the order given."""
    values = ", ".join("?" * (len(COLUMNS) + 1))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(_CREATE)
        rows = ((row, *astuple(article)) for row, article in enumerate(articles))
        connection.executemany(f"insert into articles values ({values})", rows)


class ArticleStore:
    """Reads a store. It holds no connection, so every thread may use it at any time."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __len__(self) -> int:
        with self._open() as connection:
            return int(connection.execute("select count(*) from articles").fetchone()[0])

    def read(self, rows: Sequence[int]) -> list[Article]:
        """Articles by row, in the order asked for."""
        with self._open() as connection:
            query = f"select {', '.join(COLUMNS)} from articles where row = ?"
            return [Article(*connection.execute(query, (int(row),)).fetchone()) for row in rows]

    def read_all(self) -> list[Article]:
        """Every article, by row."""
        with self._open() as connection:
            return [
                Article(*row) for row in connection.execute(f"select {', '.join(COLUMNS)} from articles order by row")
            ]

    def find(self, article_id: str) -> int | None:
        """The row of an id."""
        with self._open() as connection:
            found = connection.execute("select row from articles where id = ?", (article_id,)).fetchone()
            return None if found is None else int(found[0])

    def rows_matching(self, filters: Filters) -> NDArray[np.int64]:
        """The rows that filters admit, ascending."""
        conditions, values = _conditions(filters)
        with self._open() as connection:
            found = connection.execute(f"select row from articles where {conditions} order by row", values)
            return np.fromiter((row for (row,) in found), np.int64)

    def facets(self) -> Facets:
        """What there is to filter by."""
        with self._open() as connection:
            counts = {
                name: tuple(
                    (str(value), int(number))
                    for value, number in connection.execute(
                        f"select {name}, count(*) from articles where {name} <> '' group by 1 order by 2 desc, 1"
                    )
                )
                for name in ("source", "topic")
            }
            first, last, number = connection.execute(
                "select min(date), max(date), count(*) from articles where date <> ''"
            ).fetchone()
        dates = [date.fromisoformat(value) if value else None for value in (first, last)]
        return Facets(counts["source"], counts["topic"], dates[0], dates[1], int(number))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Raises ValueError, naming the file, for whatever SQLite cannot read."""
        try:
            uri = f"{self.file.absolute().as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise ValueError(f"{self.file}: unreadable as a store of articles ({error})") from error


def _conditions(filters: Filters) -> tuple[str, list[str]]:
    """SQL with a place for each value; no value ever becomes part of the statement."""
    conditions, values = ["1"], list[str]()
    for bound, comparison in ((filters.first_date, ">="), (filters.last_date, "<=")):
        if bound is not None:
            conditions.append(f"date <> '' and date {comparison} ?")
            values.append(bound.isoformat())
    for column, wanted in (("source", filters.sources), ("topic", filters.topics)):
        if wanted:
            conditions.append(f"{column} in ({', '.join('?' * len(wanted))})")
            values += wanted
    return " and ".join(conditions), values
