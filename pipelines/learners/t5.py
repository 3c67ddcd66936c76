"""T5 in a competition: prompts to token ids, and predictions in the competition's words."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pandas import DataFrame
from torch import Tensor, nn

from components.data.balancing import balance_rows
from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.vocabulary import Vocabulary, load_vocabulary
from components.files.atomic import read_json, write_json
from components.models.shared.inference import Batch
from components.models.t5.checkpoint import T5Model, load_t5, save_t5
from components.models.t5.prediction import predict_sequences
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_model, check_head
from pipelines.config.schema import Experiment
from pipelines.config.sections.section import starts_from_run
from pipelines.config.sections.t5 import T5FromScratch, T5Pretrained, Text
from pipelines.learners.neural import NeuralLearner, TrainedModel
from pipelines.learners.prompts import build_prompts, list_texts
from pipelines.learners.text_limits import inspect_labels, inspect_prompts
from pipelines.learners.vocabularies import obtain_vocabulary, rows_to_keep
from pipelines.runs.record import Prepared
from pipelines.runs.run import Run
from pipelines.runs.scoring import encode_labels, frame_texts
from pipelines.runs.starting_point import take_over

TARGET_IDS = "target_ids.json"


class T5Learner(NeuralLearner):
    """Trains and predicts with a T5 of either head."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        super().__init__(experiment, competition, run)
        model, data = experiment.model, experiment.data
        assert isinstance(model, T5FromScratch | T5Pretrained)
        assert isinstance(data, Text)
        self.model_section, self.data_section = model, data
        self.is_seq2seq = model.head == "seq2seq"
        self.vocabulary_folder = run.path / "vocabulary"

    # -- text and ids ------------------------------------------------------------------------------------------------

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Obtain the vocabulary, and the weights where they are another run's; count what cannot be written or read."""
        check_head(self.experiment, self.competition.task)
        texts = list_texts(self.competition, train, test)
        if isinstance(self.model_section, T5Pretrained) and starts_from_run(self.model_section):
            made: Prepared = take_over(
                self.model_section.checkpoint, self.run, kinds=(T5FromScratch.name, T5Pretrained.name)
            )
        else:
            made = obtain_vocabulary(
                self.model_section,
                self.data_section,
                texts,
                self.vocabulary_folder,
                also=also,
                reserved=self.competition.reserved_pieces,
            )
        self._keep_target_ids(train)
        prompts = texts[: len(train) + len(test)]
        counted: Prepared = {"inputs": inspect_prompts(prompts, self.vocabulary, self.data_section)}
        if self.is_seq2seq:
            counted["labels"] = inspect_labels(
                self.competition, train, self.vocabulary, model=self.model_section, data=self.data_section
            )
        return {**made, **counted}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The run's own, which `prepare` writes."""
        return load_vocabulary(self.vocabulary_folder)

    def _keep_target_ids(self, train: DataFrame) -> None:
        if self.model_section.target_pieces_only:
            written = self.vocabulary.encode(train["label"].tolist())
            write_json(self.vocabulary_folder / TARGET_IDS, sorted({token for ids in written for token in ids}))

    def _allowed_ids(self) -> Tensor | None:
        if not self.model_section.target_pieces_only:
            return None
        return torch.tensor(read_json(self.vocabulary_folder / TARGET_IDS))

    def _encode(self, frame: DataFrame, *, has_labels: bool) -> EncodedTexts:
        sources = self.vocabulary.encode(
            build_prompts(self.competition, frame), max_length=self.data_section.max_source_length
        )
        return EncodedTexts(sources, self._targets(frame) if has_labels else None)

    def _targets(self, frame: DataFrame) -> Sequence[Any]:
        if self.is_seq2seq:
            return self.vocabulary.encode(frame["label"].tolist(), max_length=self.data_section.max_target_length)
        return list(encode_labels(self.competition, frame))

    def _collator(self) -> Callable[[list[Any]], Batch]:
        return TextCollator(self.vocabulary.pad_id, self.loop_section.pad_to_multiple_of)

    def _training_rows(self, train: DataFrame) -> DataFrame:
        group, exponent = self.competition.metric_group, self.data_section.balance_exponent
        if group is None or exponent == 1.0:
            return train
        return train.iloc[balance_rows(train[group].tolist(), exponent, seed=self.experiment.seed)]

    # -- weights -----------------------------------------------------------------------------------------------------

    @property
    def _num_classes(self) -> int | None:
        return None if self.is_seq2seq else super()._num_classes

    def _create_model(self) -> nn.Module:
        return build_model(
            self.experiment,
            vocab_size=self.vocabulary.size,
            num_classes=self._num_classes,
            task=self.competition.task,
            weights=self.run.own_weights,
            kept_ids=rows_to_keep(self.vocabulary_folder),
        )

    def _load_model(self, folder: Path) -> nn.Module:
        return load_t5(folder, head=self.model_section.head, num_classes=self._num_classes)

    def _save_model(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, T5Model)
        save_t5(model, folder)

    # -- prediction --------------------------------------------------------------------------------------------------

    def _predict_with(self, models: Sequence[TrainedModel], frame: DataFrame) -> DataFrame:
        if not self.is_seq2seq:
            return super()._predict_with(models, frame)
        sequences, scores = predict_sequences(
            [trained.model for trained in models],  # type: ignore[misc]
            self._encode(frame, has_labels=False),
            self._collator(),
            batch_size=self.loop_section.eval_batch_size,
            max_length=self.data_section.max_target_length,
            num_beams=self.model_section.num_beams,
            length_penalty=self.model_section.length_penalty,
            precision=self.loop_section.eval_precision,
            allowed_ids=self._allowed_ids(),
        )
        return frame_texts(frame, self.vocabulary.decode(sequences), scores)
