"""BERT-like encoders in a competition: texts and pairs to ids, the head's labels, and the weights' coming and going."""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pandas import DataFrame
from torch import nn

from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.tokenizer import TextTokenizer, load_tokenizer
from components.models.bert.checkpoint import BertEncoder, HubEncoder, TextClassifier, load_bert, save_bert
from components.models.shared.inference import Batch
from components.training.loop import TrainingData
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_model
from pipelines.config.checkpoints import find_checkpoint
from pipelines.config.schema import Experiment
from pipelines.config.sections.bert import Bert, Segments
from pipelines.config.sections.section import starts_from_run
from pipelines.config.sections.sentence import SentenceBert, SentenceBertPretrained
from pipelines.errors import ConfigError
from pipelines.learners.neural import NeuralLearner
from pipelines.learners.prompts import build_segments
from pipelines.learners.text_limits import describe_cuts
from pipelines.runs.record import CountedTexts, Prepared, VocabularyFacts
from pipelines.runs.run import Run
from pipelines.runs.scoring import encode_labels
from pipelines.runs.starting_point import take_over


class BertLearner(NeuralLearner):
    """Trains and predicts with an encoder and a head over one text or a pair."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        super().__init__(experiment, competition, run)
        model, data = experiment.model, experiment.data
        assert isinstance(model, Bert)
        assert isinstance(data, Segments)
        self.model_section, self.data_section = model, data
        self.vocabulary_folder = run.path / "vocabulary"

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Copy the tokenizer, without which the run could not predict; take over a run's weights; count what is cut."""
        if self._num_classes is None:
            name = self.competition.name
            raise ConfigError(f"model.name: 'bert' does not suit {name}, a text_to_text task; needs a T5")
        if starts_from_run(self.model_section):
            kinds = (Bert.name, SentenceBert.name, SentenceBertPretrained.name)
            made: Prepared = take_over(
                self.model_section.checkpoint, self.run, kinds=kinds, read_vocabulary=load_tokenizer
            )
        else:
            made = self._copy_tokenizer()
        return {**made, "inputs": self._inspect_inputs(train, test)}

    def _copy_tokenizer(self) -> Prepared:
        try:
            tokenizer = load_tokenizer(find_checkpoint(self.model_section.checkpoint))
        except ValueError as error:
            raise ConfigError(f"model.checkpoint: {error}") from error
        tokenizer.save(self.vocabulary_folder)
        return {"vocabulary": VocabularyFacts(num_pieces=tokenizer.size)}

    def _inspect_inputs(self, train: DataFrame, test: DataFrame) -> CountedTexts:
        limit = self.data_section.max_length
        num_cut = sum(self.tokenizer.count_cut(*self._segments(rows), max_length=limit) for rows in (train, test))
        return describe_cuts(len(train) + len(test), num_cut, f"data.max_length: {limit} tokens")

    def _segments(self, frame: DataFrame) -> tuple[list[str], list[str] | None]:
        return build_segments(self.competition, frame, self.data_section)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The run's own, which `prepare` writes."""
        return load_tokenizer(self.vocabulary_folder)

    def _encode(self, frame: DataFrame, *, has_labels: bool) -> EncodedTexts:
        texts, pairs = self._segments(frame)
        encoded = self.tokenizer.encode(texts, pairs, max_length=self.data_section.max_length)
        labels = list(encode_labels(self.competition, frame)) if has_labels else None
        return EncodedTexts(encoded.ids, labels, type_ids=encoded.type_ids)

    def _collator(self) -> Callable[[list[Any]], Batch]:
        return TextCollator(self.tokenizer.pad_id, self.loop_section.pad_to_multiple_of)

    def _create_model(self) -> nn.Module:
        model = build_model(
            self.experiment, num_classes=self._num_classes, task=self.competition.task, weights=self.run.own_weights
        )
        assert isinstance(model, TextClassifier)
        encoder, longest = model.encoder, self.data_section.max_length
        assert isinstance(encoder, BertEncoder | HubEncoder)
        if longest > encoder.max_length:
            raise ConfigError(f"data.max_length: {longest}, but the checkpoint reads {encoder.max_length} at most")
        return model

    def _fit_to_rows(self, model: nn.Module, data: TrainingData) -> None:
        """Leave word embeddings that no training row uses out of the optimizer."""
        assert isinstance(model, TextClassifier)
        assert isinstance(data, EncodedTexts)
        if (
            self.model_section.train_used_embeddings
            and self.model_section.freeze == "none"
            and isinstance(model.encoder, BertEncoder)
        ):
            model.encoder.train_used_rows(chain.from_iterable(data.sources))

    def _load_model(self, folder: Path) -> nn.Module:
        return load_bert(folder)

    def _save_model(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, TextClassifier)
        save_bert(model, folder)
