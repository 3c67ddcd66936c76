"""Labels that a vocabulary cannot write and texts that a limit cuts: counted before training, for no score tells why.

What is counted stands in run.json under `labels` and `inputs`, with a note where somebody should hear of it.
"""

from collections.abc import Sequence
from dataclasses import replace

from pandas import DataFrame

from components.data.text.spelling import Spelling, check_spelling, count_cut
from components.data.text.vocabulary import Vocabulary
from components.metrics.table import METRICS
from pipelines.competitions.competition import Competition
from pipelines.config.sections.section import starts_from_run
from pipelines.config.sections.t5 import BUILT, T5FromScratch, T5Pretrained, Text
from pipelines.errors import ConfigError
from pipelines.runs.observer import Screen
from pipelines.runs.record import CountedTexts, RunRecord
from pipelines.tracking.tracker import Tracker

WHOLE_ANSWERS = ("exact_match", "word_accuracy", "mrr_at_10", "recall_at_1")
"""Metrics to which an answer that is nearly right is wrong."""
MOST = 0.9
"""A share of labels that cannot be written from which on such a metric has nothing to tell."""
SHOWN = 60
"""Characters of a label in a message."""


def inspect_labels(
    competition: Competition,
    train: DataFrame,
    vocabulary: Vocabulary,
    *,
    model: T5FromScratch | T5Pretrained,
    data: Text,
) -> CountedTexts:
    """Count the training labels that no prediction can equal, for run.json.

    Raises ConfigError where these are nearly all and the metric that decides counts whole answers only.
    """
    metric = METRICS[competition.metric]

    def is_same(text: str, back: str) -> bool:
        try:
            return metric.function([text], [back]) == (1.0 if metric.greater_is_better else 0.0)
        except ValueError:  # a label without a symbol has no error rate
            return False

    found = check_spelling(vocabulary, train["label"].tolist(), max_length=data.max_target_length, is_same=is_same)
    counted = CountedTexts(num_rows=found.num_rows, num_unspellable=found.num_unspellable, num_cut=found.num_cut)
    if not found.num_unwritable:
        return counted
    note = "; ".join(_sentences(found, train, model, data))
    if metric.name in WHOLE_ANSWERS and found.num_unwritable >= MOST * found.num_rows:
        raise ConfigError(f"{competition.name}: {note}; {metric.name} counts whole answers only")
    return replace(counted, note=note)


def inspect_prompts(texts: Sequence[str], vocabulary: Vocabulary, data: Text) -> CountedTexts:
    """Count the prompts that `data.max_source_length` cuts, for run.json."""
    num_cut = count_cut(vocabulary, texts, max_length=data.max_source_length)
    return describe_cuts(len(texts), num_cut, f"data.max_source_length: {data.max_source_length} tokens")


def describe_cuts(num_rows: int, num_cut: int, limit: str) -> CountedTexts:
    """The entry of run.json on inputs of which `limit` cuts some; a note where it cuts most of them."""
    note = f"{num_cut} of {num_rows} training and test inputs are longer than {limit} and are cut"
    return CountedTexts(num_rows=num_rows, num_cut=num_cut, note=note if 2 * num_cut > num_rows else "")


def say_limits(record: RunRecord, tracker: Tracker, screen: Screen) -> None:
    """Tell screen and tracker what was counted when the run began."""
    for kind, counted in (("labels", record.labels), ("inputs", record.inputs)):
        if counted is None:
            continue
        numbers = {"num_unspellable": counted.num_unspellable, "num_cut": counted.num_cut}
        tracker.log_metrics({f"data/{name}_{kind}": float(number) for name, number in numbers.items() if number})
        if counted.note:
            screen.say(counted.note)


def _sentences(found: Spelling, train: DataFrame, model: T5FromScratch | T5Pretrained, data: Text) -> list[str]:
    sentences = []
    if found.misspelling is not None:
        wrong = found.misspelling
        sentences.append(
            f"{found.num_unspellable} of {found.num_rows} labels cannot be written with this vocabulary (id "
            f"{_first_id(train, wrong.text)}: {_shown(wrong.text)} comes back as {_shown(wrong.back)}); "
            f"{_cure(wrong.has_unknown, model, data)}"
        )
    if found.cut is not None:
        sentences.append(
            f"{found.num_cut} of {found.num_rows} labels are longer than data.max_target_length: "
            f"{data.max_target_length} tokens and lose their end (id {_first_id(train, found.cut)}: "
            f"{_shown(found.cut)}); the longest needs data.max_target_length={found.longest}"
        )
    return sentences


def _cure(has_unknown: bool, model: T5FromScratch | T5Pretrained, data: Text) -> str:
    is_new = isinstance(model, T5FromScratch)
    if not has_unknown and (data.vocabulary in BUILT or not is_new):
        return "write such labels in train.csv as they come back"
    if not has_unknown:
        return "data.vocabulary=unigram takes every text as it is"
    if data.vocabulary in BUILT:
        return "a larger data.vocabulary_size, or data.vocabulary=unigram, writes them"
    if starts_from_run(model):
        return "the run that it is taken from needs data.trim_vocabulary=true and data.trim_for with this competition"
    return "data.trim_vocabulary=true writes them"


def _first_id(train: DataFrame, label: str) -> str:
    return str(train["id"][train["label"] == label].iloc[0])


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
