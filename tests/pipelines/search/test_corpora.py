"""The corpora that travel in packages: how many articles, each once, and nothing of them that could run."""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest

from pipelines.competitions.sources.plain_pickle import read_plain_pickle
from pipelines.errors import PodiumError
from pipelines.search.corpora import chinese_news, lee
from pipelines.search.corpora.corpus import CORPORA, load_corpus


class Trap:
    def __reduce__(self):
        return (print, ("it ran",))


def test_a_pickle_that_holds_a_class_is_refused_before_anything_of_it_runs(tmp_path, capsys):
    file = tmp_path / "trap.pkl"
    file.write_bytes(pickle.dumps(["text", Trap()]))
    with pytest.raises(PodiumError, match=r"trap\.pkl: not read \(it asks for builtins\.print; only plain"):
        read_plain_pickle(file)
    assert capsys.readouterr().out == ""
    file.write_bytes(pickle.dumps((["标题"], ["内容"], [1])))
    assert read_plain_pickle(file) == (["标题"], ["内容"], [1])
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(PodiumError, match="not read"):
        read_plain_pickle(file)


@pytest.mark.parametrize(
    ("name", "num_articles", "num_evaluated"), [("chinese_news", 6877, 1850), ("english_news", 2092, 2092)]
)
def test_every_article_is_there_once(name, num_articles, num_evaluated):
    corpus = load_corpus(name)
    articles, evaluated = corpus.load(), corpus.load_evaluated()
    assert (len(articles), len(evaluated)) == (num_articles, num_evaluated)
    assert len({article.id for article in articles}) == num_articles
    assert {article.id for article in evaluated} <= {article.id for article in articles}
    assert all(article.title and article.body for article in articles)


def test_dates_and_sources_are_those_that_stand_in_the_text():
    assert chinese_news.stated_date("发布时间：2018年13月1日，2018-2-30，2018年 2 月 3 日") == "2018-02-03"
    assert chinese_news.stated_date("电话 2018-2-300，没有日期") == ""
    assert chinese_news.stated_source("标题_手机网易网", "") == "网易"
    assert chinese_news.stated_source("标题", "（来源：新华网）") == "新华"
    assert chinese_news.stated_source("新华书店开业", "无") == ""


def test_an_unknown_corpus_is_answered_with_a_near_one():
    assert CORPORA == ("chinese_news", "english_news", "lee")
    with pytest.raises(PodiumError, match="did you mean chinese_news"):
        load_corpus("chinese_new")


def test_graded_relevance_is_symmetric():
    if find_spec("gensim") is None:
        pytest.skip("pip install --no-deps gensim==4.4.0 brings the Lee corpus")
    gains = lee.load_relevance()
    assert len(lee.load_items()) == 50
    assert len(lee.load()) == 350
    np.testing.assert_array_equal(gains, gains.T)
    assert not np.diag(gains).any()
    assert gains.sum() == pytest.approx(148.34, abs=0.01)
