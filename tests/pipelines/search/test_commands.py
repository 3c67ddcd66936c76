"""`podium search …` over a tiny corpus and an encoder without weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
from search_fakes import ARTICLES, HashEncoder

from pipelines import cli
from pipelines.errors import PodiumError
from pipelines.search import evaluation as search_evaluation
from pipelines.search import indexing as stage
from pipelines.search.corpora import corpus as corpora
from pipelines.search.corpora import english_news
from pipelines.search.encoders import open_sentence_encoder
from pipelines.workspace import Workspace

NEWS = tuple(article for article in ARTICLES if article.id in "abc")


@pytest.fixture
def podium(tmp_path, monkeypatch, capsys):
    """The command line on a corpus of three articles; returns what it printed."""
    corpus = replace(english_news.CORPUS, load=lambda: list(NEWS), load_evaluated=lambda: list(ARTICLES))
    monkeypatch.setattr(english_news, "CORPUS", corpus)
    for module in (stage, search_evaluation):
        monkeypatch.setattr(module, "open_sentence_encoder", lambda *_, **__: HashEncoder())

    def run(*words):
        cli.main(["--root", str(tmp_path), "search", *words])
        return capsys.readouterr().out

    return run


def failure(podium, capsys, *words):
    with pytest.raises(SystemExit):
        podium(*words)
    return capsys.readouterr().err


def test_a_corpus_is_indexed_once_and_answers(podium, tmp_path):
    assert "english_news: indexed in" in podium("index", "english_news")
    assert "already indexed" in podium("index", "english_news")
    assert "indexed in" in podium("index", "english_news", "--dtype", "float16")
    out = podium("query", "central bank rates", "--corpus", "english_news", "--limit", "1")
    assert out.startswith(" 1. Bank cuts interest rates  ")
    assert "1 of 3 articles" in out
    only = podium("query", "rates striker 经济", "--corpus", "english_news", "--since", "2018-06-01")
    assert " 1. 中国经济增长" in only
    assert "1 of 1 articles" in only
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_articles_are_added_from_a_file(podium, tmp_path, capsys):
    podium("index", "english_news")
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps({"id": "new", "body": "A volcano woke up.", "date": "2026-11-25"}) + "\n")
    assert podium("add", "english_news", str(file)) == "english_news: 1 articles added, 4 now\n"
    assert "1 of 4 articles" in podium("query", "volcano", "--corpus", "english_news", "--mode", "lexical")
    assert "article new: two articles have this id" in failure(podium, capsys, "add", "english_news", str(file))
    for line in ('{"id": 1}', "[1]", "torn", '{"id": 1, "body": "x", "place": "y"}'):
        file.write_text(line)
        said = failure(podium, capsys, "add", "english_news", str(file))
        assert "more.jsonl:1: no article; a line is an object" in said


def test_mistakes_are_one_line(podium, tmp_path, capsys):
    assert "no index here: podium search index chinese_news" in failure(podium, capsys, "query", "x")
    assert "corpus 'bbc': no such corpus" in failure(podium, capsys, "index", "bbc")
    assert "no index to serve; make one: podium search index" in failure(podium, capsys, "app")
    podium("index", "english_news")
    assert "no word, number or character" in failure(podium, capsys, "query", " ", "--corpus", "english_news")
    said = failure(podium, capsys, "query", "x", "--corpus", "english_news", "--mode", "fast")
    assert "mode 'fast': choose one of" in said
    (tmp_path / "data/search/english_news/terms.npy").write_bytes(b"x")
    said = failure(podium, capsys, "query", "x", "--corpus", "english_news")
    assert "terms.npy: damaged" in said
    assert said.endswith("index again: podium search index english_news\n")


def test_the_evaluation_prints_tunes_and_records(podium, tmp_path):
    out = podium("evaluate", "english_news", "--tracking", "jsonl")
    assert "english_news: 5 candidates, encoder hash0" in out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["method", "lexical", "dense", "ranks", "hybrid"]
    (folder,) = (tmp_path / "build/search_evaluation/english_news").iterdir()
    recorded = json.loads((folder / "metrics.json").read_text())
    assert recorded["metrics"].keys() == {
        f"{method}/{metric}"
        for method in ("lexical", "dense", "ranks", "hybrid")
        for metric in ("mrr@10", "recall@1", "recall@10")
    }
    assert (folder / "tracking/metrics.jsonl").is_file()


def test_weights_are_tuned_on_one_half_and_reported_on_the_other():
    lexical, dense = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[::-1]
    questions = search_evaluation.Questions(
        lexical=np.concatenate([lexical[:2], dense[2:]]),
        dense=np.concatenate([dense[:2], lexical[2:]]),
        judge=lambda q, scores: {"right": float(scores.argmax() == q)},
        summary="right",
        is_tuning=np.array([True, True, False, False]),
        swaps_halves=False,
    )
    rows, weights = search_evaluation.compare_methods(questions)
    # Words alone are right on the tuning half and wrong on the other: what was tuned must fail there.
    assert weights == [0.0]
    assert rows["hybrid"] == rows["lexical"] == {"right": 0.0}
    assert rows["dense"] == {"right": 1.0}
    swapped, weights = search_evaluation.compare_methods(replace(questions, swaps_halves=True))
    assert len(weights) == 2
    assert swapped["lexical"] == {"right": 0.5}


def test_a_name_that_means_no_encoder_is_answered(tmp_path):
    workspace = Workspace(tmp_path)
    for name, said in (
        ("minilmm", "no such encoder; choose minilm, usem3, run:EXPERIMENT or a checkpoint's folder"),
        ("run:nothing", "experiment nothing: no runs under"),
        (str(tmp_path), r"no model\.safetensors"),
    ):
        with pytest.raises(PodiumError, match=said):
            open_sentence_encoder(workspace, name)
    with pytest.raises(PodiumError, match="runtime 'jax': choose one of onnx, torch"):
        open_sentence_encoder(workspace, "minilm", runtime="jax")
    assert list(tmp_path.iterdir()) == []


def test_every_corpus_is_one_module_of_that_name():
    for name in corpora.CORPORA:
        assert corpora.load_corpus(name).name == name
