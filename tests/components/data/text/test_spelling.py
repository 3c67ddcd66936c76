"""What a vocabulary cannot write and what its limits cut: counted exactly, and told before anything is trained."""

import pandas as pd
import pytest
from tiny_competition import install_competition
from tiny_regression import save_tiny_bert

from components.data.text.spelling import Misspelling, check_spelling, count_cut
from components.data.text.tokenizer import load_tokenizer
from components.data.text.vocabulary import build_vocabulary
from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.learners.registry import create_learner
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

TEXTS = ["red", "{red}", "green", "{red}", "red  green", "blue"]
EXPERIMENT = """\
name: tiny
competition: tiny_task
model: {name: t5_from_scratch, d_model: 8, d_kv: 4, d_ff: 8, num_layers: 1, num_decoder_layers: 1}
data: {name: text, vocabulary: file, vocabulary_file: FILE}
optimizer: {name: adamw, lr: 1e-3}
schedule: {name: constant}
folds: {name: holdout}
training: {num_steps: 2}
tracking: {name: none}
"""


def never(text, back):
    return False


@pytest.fixture
def vocabulary(tmp_path):
    """Characters of "red green", and no others."""
    return build_vocabulary(["red green"], tmp_path / "characters", kind="character", size=40)


@pytest.fixture
def prepare(vocabulary, tmp_path, monkeypatch):
    """What a learner says of some labels before it trains."""
    (tmp_path / "experiments").mkdir()
    text = EXPERIMENT.replace("FILE", str(tmp_path / "characters" / "spiece.model"))
    (tmp_path / "experiments" / "tiny.yaml").write_text(text)
    folder = tmp_path / "run"
    folder.mkdir()

    def run(labels, *overrides, metric="exact_match"):
        competition = install_competition(
            monkeypatch, tmp_path / "table", task="text_to_text", metric=metric, extra_metrics=()
        )
        experiment = load_experiment(Workspace(tmp_path), "tiny", overrides)
        ids = [f"r{row}" for row in range(len(labels))]
        train = pd.DataFrame({"id": ids, "text": ["red green"] * len(labels), "label": labels})
        test = pd.DataFrame({"id": ["t0", "t1"], "text": ["red", "green"]})
        return create_learner(experiment, competition, Run(folder)).prepare(train, test)

    return run


def test_what_does_not_come_back_and_what_is_too_long_is_counted_by_rows(vocabulary):
    found = check_spelling(vocabulary, TEXTS, max_length=6, is_same=never)
    assert (found.num_rows, found.num_unspellable, found.num_cut, found.num_unwritable) == (6, 3, 1, 4)
    assert found.misspelling == Misspelling("{red}", " \u2047 red \u2047 ", has_unknown=True)
    assert (found.cut, found.longest) == ("red  green", 11)


def test_the_limit_counts_the_closing_token(vocabulary):
    assert [count_cut(vocabulary, ["red", "green"], max_length=limit) for limit in (3, 4, 5, 6)] == [2, 1, 1, 0]
    assert check_spelling(vocabulary, ["red"], max_length=4, is_same=never).num_unwritable == 0
    assert check_spelling(vocabulary, [], max_length=4, is_same=never).num_rows == 0


@pytest.mark.parametrize("kind", ["unigram", "bpe", "character", "word"])
def test_vocabularies_built_here_write_blanks_lines_and_rare_characters(tmp_path, kind):
    texts = ["a  b", " a", "a ", "a\tb", "a\u00a0b", "\ufb01sh", "\uff21", "e\u0301", "{x}", "\u65e5\u672c"]
    corpus = [*texts, *["the fish and the bread " * 3] * 9]
    size = {"unigram": 284, "bpe": 290}.get(kind, 100)
    built = build_vocabulary(corpus, tmp_path / kind, kind=kind, size=size)
    found = check_spelling(built, [*texts, "\u2581a"], max_length=99, is_same=never)
    assert (found.num_unspellable, found.misspelling) == (1, Misspelling("\u2581a", " a", has_unknown=False))


def test_labels_that_can_all_be_written_are_counted_and_no_word_is_lost_on_them(prepare):
    assert prepare(["red", "green", "red green"])["labels"].entries() == {"num_rows": 3, "num_unspellable": 0, "num_cut": 0}


def test_some_labels_that_cannot_be_written_are_told_with_an_example_and_the_cure(prepare):
    labels = prepare(["red", "{red}", "green", "green red green"], "data.max_target_length=12")["labels"]
    assert labels.entries() == {
        "num_rows": 4,
        "num_unspellable": 1,
        "num_cut": 1,
        "note": "1 of 4 labels cannot be written with this vocabulary (id r1: '{red}' comes back as "
        "' \u2047 red \u2047 '); data.trim_vocabulary=true writes them; 1 of 4 labels are longer than "
        "data.max_target_length: 12 tokens and lose their end (id r3: 'green red green'); the longest needs "
        "data.max_target_length=16",
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "10 of 11 labels cannot be written with this vocabulary (id r1: '{red}' comes back as"),
        (["data.max_target_length=3"], "1 of 11 labels are longer than data.max_target_length: 3 tokens"),
    ],
)
def test_nearly_all_of_them_end_the_run(prepare, overrides, words):
    with pytest.raises(PodiumError) as error:
        prepare(["red", *["{red}"] * 10] if not overrides else ["red"] * 11, *overrides)
    message = str(error.value)
    assert message.startswith("tiny_task: ")
    assert words.replace("1 of 11 labels are", "11 of 11 labels are") in message
    assert message.endswith("exact_match counts whole answers only")
    assert "\n" not in message


def test_a_metric_that_counts_parts_only_hears_of_it(prepare):
    labels = prepare(["green"] * 10, "data.max_target_length=3", metric="cer")["labels"]
    assert (labels.num_cut, "10 of 10 labels are longer" in labels.note) == (10, True)


@pytest.mark.parametrize(("metric", "count"), [("exact_match", 1), ("word_accuracy", 0), ("per", 0), ("cer", 1)])
def test_only_a_difference_that_the_metric_sees_counts(prepare, tmp_path, metric, count):
    """A vocabulary file that squeezes blanks, as published ones do."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["red green"] * 9), model_prefix=str(tmp_path / "squeezing"), model_type="char",
        vocab_size=12, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    labels = prepare(
        ["red  green", "red", "green"], f"data.vocabulary_file={tmp_path / 'squeezing.model'}", metric=metric
    )["labels"]
    assert labels.num_unspellable == count
    assert ("data.vocabulary=unigram takes every text as it is" in labels.note) == bool(count)


def test_prompts_that_are_cut_are_counted_and_told_where_they_are_most(prepare):
    """The prompts are "text: red green" (three times), "text: red" and "text: green"."""
    assert prepare(["red"] * 3)["inputs"].entries() == {"num_rows": 5, "num_cut": 0}
    assert prepare(["red"] * 3, "data.max_source_length=13")["inputs"].entries() == {
        "num_rows": 5,
        "num_cut": 3,
        "note": "3 of 5 training and test inputs are longer than data.max_source_length: 13 tokens and are cut",
    }
    few = prepare(["red"], "data.max_source_length=13")["inputs"]
    assert few.entries() == {"num_rows": 3, "num_cut": 1}


def test_texts_and_pairs_that_an_encoder_cuts_are_counted(tmp_path):
    tokenizer = load_tokenizer(save_tiny_bert(tmp_path))
    texts = ["fine", "fine bad", "fine bad word"]
    lengths = [len(ids) for ids in tokenizer.encode(texts, max_length=99).ids]
    assert lengths == [2, 3, 4]
    assert [tokenizer.count_cut(texts, max_length=limit) for limit in (4, 3, 2)] == [0, 1, 2]
    assert [tokenizer.count_cut(texts, ["word"] * 3, max_length=limit) for limit in (5, 4, 3)] == [0, 1, 2]
    assert tokenizer.encode(texts, max_length=3).ids[2] == tokenizer.encode(texts, max_length=99).ids[2][:3]
