"""The search page, run by Streamlit's own test driver; no browser and no packaged model."""

import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from html import unescape
from urllib.parse import parse_qs

import pytest
import requests
from search_fakes import ARTICLES, SIMPLIFIED, HashEncoder

streamlit = pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest  # noqa: E402

from components.search.articles import Article  # noqa: E402
from components.search.index import build_index  # noqa: E402
from pipelines.search.page import desk  # noqa: E402
from pipelines.search.page.health import HEALTH  # noqa: E402
from pipelines.search.serving import APP, app_command, app_environment  # noqa: E402
from pipelines.workspace import Workspace  # noqa: E402

TRAP = Article("trap", "<b>bold</b> title", "<script>alert(1)</script> <img src=x onerror=alert(2)> rates", topic="<i>")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A root with an index called chinese_news; encoders are counted as the page counts them."""
    streamlit.cache_resource.clear()
    streamlit.cache_data.clear()
    monkeypatch.setenv("PODIUM_SEARCH_ROOT", str(tmp_path))
    monkeypatch.delenv("PODIUM_ENCODER_URLS", raising=False)
    monkeypatch.setattr(desk, "open_sentence_encoder", lambda *_, **__: HashEncoder())
    folder = tmp_path / "data/search/chinese_news"
    options = {"corpus": "chinese_news", "simplified": SIMPLIFIED, "dense_weight": 0.3}
    build_index(folder, (*ARTICLES, TRAP), HashEncoder(), **options)
    return folder


def open_page(**parameters):
    app = AppTest.from_file(str(APP), default_timeout=30)
    for key, value in parameters.items():
        app.query_params[key] = value
    app.run()
    return checked(app)


def ask(app, text):
    return checked(app.text_input(key="q").set_value(text).run())


def checked(app):
    assert not app.exception
    return app


def html(app):
    return "\n".join(block.proto.body for block in app.get("html"))


def titles(app):
    return html(app).count('class="pod-card"')


def notes(app):
    return [element.value for element in (*app.info, *app.warning, *app.error)]


def test_twenty_interactions_load_the_model_once(served):
    before = HEALTH.loads.copy()
    app = open_page()
    for number in range(20):
        ask(app, f"interest rates {number}")
    assert titles(app) > 0
    assert HEALTH.loads - before == {"encoder": 1, "index": 1}
    open_page(q="striker")
    assert HEALTH.loads - before == {"encoder": 1, "index": 1}


def test_a_changed_index_is_opened_again_and_its_encoder_is_not(served):
    before = HEALTH.loads.copy()
    app = ask(open_page(), "striker")
    options = {"corpus": "chinese_news", "simplified": SIMPLIFIED, "dense_weight": 0.3}
    build_index(served, ARTICLES[:2], HashEncoder(), **options)
    app = ask(app, "central bank rates")
    assert HEALTH.loads - before == {"encoder": 1, "index": 2}
    assert "/ 2 " in html(app)


def test_the_same_question_is_searched_once(served):
    before = HEALTH.describe()["searches"]
    app = ask(ask(ask(open_page(), "rates"), "striker"), "rates")
    ask(open_page(), "rates")
    assert titles(app) > 0
    assert HEALTH.describe()["searches"] == before + 2


def test_chinese_in_either_script_finds_and_marks(served):
    app = ask(open_page(), "華裔老师")
    assert '<a href="?lang=zh&amp;corpus=chinese_news&amp;q=%E8%8F%AF' in html(app)
    assert "<mark>華裔老師</mark>" in html(app)


def test_the_interface_speaks_two_languages(served):
    app = open_page()
    assert "新闻检索" in html(app)
    app.session_state["lang"] = "en"
    assert "News search" in html(checked(app.run()))
    assert "News search" in html(open_page(lang="en"))
    assert "新闻检索" in html(open_page(lang="xx"))


def test_filters_narrow_and_the_address_is_a_permalink(served):
    app = ask(open_page(), "the 国 rates striker low")
    shown = titles(app)
    app = checked(app.multiselect(key="topics").set_value(["sports"]).run())
    assert titles(app) == 1 < shown
    assert app.query_params["topics"] == "sports"
    again = open_page(q="the 国 rates striker low", topics="sports", corpus="chinese_news")
    assert titles(again) == 1
    dated = open_page(q="the 国 rates striker low", **{"from": "2018-06-01", "to": "2018-12-31"})
    assert titles(dated) == 1
    assert "2018-12-27" in html(dated)
    assert titles(open_page(q="rates", **{"from": "yesterday", "topics": "none", "mode": "fast", "n": "x"})) > 0


def test_an_article_has_a_page_of_its_own(served):
    page = html(open_page(article="c", q="经济"))
    assert "国家统计局公布的<mark>经济</mark>数据" in page
    assert "链接里的文章已不在语料中。" in notes(open_page(article="gone"))


def test_an_article_s_page_knows_the_way_back_to_filtered_results(served):
    question = {"lang": "zh", "corpus": "chinese_news", "q": "经济", "mode": "lexical", "topics": "neutral"}
    question |= {"from": "2018-12-01", "to": "2019-01-28"}
    (card,) = re.findall(r'href="[?]([^"]*article=c)"', html(open_page(**question)))
    assert parse_qs(unescape(card)) == {key: [value] for key, value in (question | {"article": "c"}).items()}
    (back,) = re.findall(r'href="[?]([^"]*)"', html(open_page(**question, article="c")))
    assert parse_qs(unescape(back)) == {key: [value] for key, value in question.items()}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("   ", None),
        ("🙂🙂", "检索词里没有文字或数字。请输入一个词或一句话。"),
        ("!?<>()", "检索词里没有文字或数字。请输入一个词或一句话。"),
        ("'; drop table articles; --", None),
        ("<script>alert(1)</script>", None),
        ("rates " * 2000, "检索词过长，只用了前 1,000 个字符。"),
        ("zzzzqqqq", "没有找到。换一个说法，或放宽筛选条件。"),
    ],
)
def test_odd_queries_are_answered_with_a_sentence_and_run_nothing(served, query, said):
    app = ask(open_page(), query)
    assert notes(app) == ([said] if said else [])
    assert "<script>" not in html(app)
    assert titles(ask(app, "rates")) > 0


def test_what_an_article_holds_is_shown_and_never_run(served):
    for page in (html(ask(open_page(), "rates")), html(open_page(article="trap", q="rates"))):
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror=alert(2)&gt; <mark>rates</mark>" in page
        assert "&lt;b&gt;bold&lt;/b&gt; title" in page
        assert "<script" not in page
        assert "<img" not in page


def test_a_missing_or_damaged_index_is_a_sentence(served):
    assert notes(open_page(corpus="<b>nowhere")) == ["没有名为 <b>nowhere 的语料；以下是可用的。"]
    streamlit.cache_resource.clear()
    (served / "counts.npy").write_bytes(b"damaged")
    broken = "chinese_news 的索引无法使用。请重新建立：podium search index chinese_news --force"
    assert notes(open_page(q="rates")) == [broken]
    (served / "index.json").unlink()
    assert notes(open_page()) == ["还没有可检索的语料。请先运行 podium search index chinese_news"]


def test_a_service_that_is_away_is_a_sentence(served, monkeypatch):
    monkeypatch.setenv("PODIUM_ENCODER_URLS", "http://127.0.0.1:9")
    assert notes(open_page(q="rates")) == ["编码服务没有回应。"]


def test_a_surprise_is_logged_and_not_shown(served, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(desk, "list_served", fail)
    app = open_page()
    assert notes(app) == ["检索未能完成，原因已写入服务器日志。请再试一次。"]
    assert "secret detail" not in html(app)
    assert "secret detail" in caplog.text


def test_the_page_imports_no_torch():
    program = (
        "import sys; from streamlit.testing.v1 import AppTest; "
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=60).run(); "
        "import components.search.onnx_encoder, components.search.usem3_encoder; "
        "print(len(app.exception), sorted(sys.modules.keys() & {'torch', 'transformers', 'mlflow', 'fastapi', 'onnx'}))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert result.stdout.strip() == "0 []"


def test_the_command_serves_the_page(served):
    """The command itself, over HTTP; what the page shows is what the driver above sees of the same file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = app_environment(Workspace(served.parents[2]), [])
    with subprocess.Popen(app_command(address="127.0.0.1", port=port), env=environment) as server:
        try:
            while server.poll() is None:
                with suppress(requests.ConnectionError):
                    assert requests.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).text == "ok"
                    break
                time.sleep(0.1)
            assert server.poll() is None
        finally:
            server.terminate()
