"""The index: what it keeps, what it finds, what it refuses."""

import json
import threading
from datetime import date

import numpy as np
import pytest
from search_fakes import ARTICLES, SIMPLIFIED, HashEncoder

from components.search.articles import ArticleStore, Facets, Filters, hash_articles
from components.search.encoders import encode_in_batches
from components.search.index import add_articles, build_index, open_index
from components.search.searching import MODES, search

FILES = {
    "articles.npy", "articles.sqlite", "counts.npy", "folding.json", "index.json", "lengths.npy", "offsets.npy",
    "terms.npy", "vectors.npy",
}  # fmt: skip


def build(folder, articles=ARTICLES, encoder=None, **options):
    options = {"corpus": "tiny", "simplified": SIMPLIFIED, "dense_weight": 0.3} | options
    return build_index(folder, articles, encoder or HashEncoder(), **options)


@pytest.fixture
def index(tmp_path):
    build(tmp_path / "index")
    return open_index(tmp_path / "index", encoder=HashEncoder())


def ids(index, query, **options):
    return [hit.article.id for hit in search(index, HashEncoder(), query, **options).hits]


def test_the_folder_holds_exactly_its_files_and_says_what_made_them(tmp_path):
    record = build(tmp_path / "index")
    assert {path.name for path in (tmp_path / "index").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert (record.corpus_sha256, record.encoder, record.num_articles) == (hash_articles(ARTICLES), "hash0", 5)


def test_batches_go_by_length_and_come_back_in_order():
    encoder, progress = HashEncoder(), []
    texts = [article.body for article in ARTICLES]
    vectors = encode_in_batches(encoder, texts, batch_size=2, on_progress=progress.append)
    np.testing.assert_array_equal(vectors, HashEncoder().encode(texts))
    assert progress == [2, 4, 5]


def test_either_script_and_width_finds_the_other(index):
    assert ids(index, "經濟", mode="lexical") == ids(index, "经济", mode="lexical") == ["c"]
    assert ids(index, "华裔", mode="lexical")[0] == "d"
    assert ids(index, "ＢＡＮＫ", mode="lexical") == ["a"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_puts_the_article_first_that_shares_the_words(index, mode):
    assert ids(index, "striker signs for city", mode=mode)[0] == "b"


def test_hits_carry_their_scores_and_marks(index):
    result = search(index, HashEncoder(), "bank cuts interest rates")
    first = result.hits[0]
    assert first.article.id == "a"
    assert first.score >= result.hits[1].score
    assert first.bm25 > 0
    assert [piece.text for piece in first.title if piece.is_match] == ["Bank", "cuts"]
    assert (result.num_admitted, result.was_cut) == (5, False)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), {"a", "b", "c", "d", "e"}),
        (Filters(sources=("新华网",)), {"c", "d"}),
        (Filters(topics=("sports", "business")), {"a", "b"}),
        (Filters(first_date=date(2018, 12, 27)), {"c", "d"}),
        (Filters(last_date=date(2018, 12, 27)), {"b", "c"}),
        (Filters(date(2018, 12, 27), date(2018, 12, 27), ("新华网",), ("neutral",)), {"c"}),
        (Filters(sources=("'; drop table articles; --",)), set()),
    ],
)
def test_filters_admit_what_they_say(index, filters, expected):
    rows = index.store.rows_matching(filters)
    assert {article.id for article in index.store.read(rows)} == expected
    found = ids(index, "the 国 rates striker weather no", filters=filters, mode="lexical")
    assert set(found) == expected
    assert len(index.store) == 5


def test_facets_count_what_there_is(index):
    assert index.store.facets() == Facets(
        sources=(("新华网", 2), ("Post", 1)),
        topics=(("business", 1), ("negative", 1), ("neutral", 1), ("sports", 1)),
        first_date=date(2018, 5, 3),
        last_date=date(2019, 1, 28),
        num_dated=3,
    )
    assert index.store.find("c") == 2
    assert index.store.find("' or 1=1 --") is None


def test_articles_added_later_give_the_same_files_as_all_at_once(tmp_path):
    build(tmp_path / "whole", dtype="float16")
    build(tmp_path / "grown", ARTICLES[:3], dtype="float16")
    encoder = HashEncoder()
    add_articles(tmp_path / "grown", ARTICLES[3:], encoder)
    assert encoder.num_texts == 2
    for name in sorted(FILES):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "grown" / name).read_bytes(), name
    with pytest.raises(ValueError, match="article a: two articles have this id"):
        add_articles(tmp_path / "grown", ARTICLES[:1], encoder)


def test_another_encoder_corpus_or_version_is_refused(tmp_path):
    build(tmp_path)
    with pytest.raises(ValueError, match=r"made with the encoder hash0 .* not with hash1"):
        open_index(tmp_path, encoder=HashEncoder(1))
    with pytest.raises(ValueError, match="another state of the corpus tiny"):
        open_index(tmp_path, corpus_sha256="f" * 64)
    open_index(tmp_path, encoder=HashEncoder(), corpus_sha256=hash_articles(ARTICLES))
    record = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(record | {"version": 0}))
    with pytest.raises(ValueError, match="version 0, but this program reads 1"):
        open_index(tmp_path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_or_missing_file_is_named(tmp_path, name):
    build(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if name != "index.json":
        with pytest.raises(ValueError, match=f"{name}: damaged"):
            open_index(tmp_path)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        open_index(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="no index here" if name == "index.json" else f"{name}: missing"):
        open_index(tmp_path)


def test_what_cannot_be_indexed_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="without articles"):
        build(tmp_path / "index", ())
    with pytest.raises(ValueError, match="choose one of float32, float16"):
        build(tmp_path / "index", dtype="int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("query", ["", "   ", "🙂🙂", "!?<>", "___"])
def test_a_query_without_words_says_so(index, query):
    with pytest.raises(ValueError, match="no word, number or character"):
        search(index, HashEncoder(), query)


def test_a_long_query_is_cut_and_says_so(index):
    assert search(index, HashEncoder(), "rates " * 5000).was_cut
    with pytest.raises(ValueError, match="mode 'fast': choose one of"):
        search(index, HashEncoder(), "rates", mode="fast")


def test_threads_share_one_index_and_agree(index):
    expected, found, errors = ids(index, "interest rates"), [], []

    def ask():
        try:
            found.extend(ids(index, "interest rates") for _ in range(20))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found == [expected] * 160


def test_a_store_that_is_no_database_is_named(tmp_path):
    (tmp_path / "articles.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ValueError, match=r"articles\.sqlite: unreadable as a store"):
        ArticleStore(tmp_path / "articles.sqlite").facets()
