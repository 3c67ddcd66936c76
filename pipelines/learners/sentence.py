"""Sentence encoders in a competition: a title's answer is the rows whose bodies lie nearest to it.

Trained on pairs, or taught by another encoder's similarities; either way what is kept is a plain checkpoint folder,
which search opens by the run's name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from pandas import DataFrame
from torch import Tensor, nn

from components.data.text.character_tokenizer import build_character_tokenizer
from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.groups import ArticlePairs, TaughtTexts, TextGroupCollator
from components.data.text.tokenizer import TextTokenizer, load_tokenizer
from components.models.sentence.model import SentenceModel
from components.models.sentence.wide import load_vectors_encoder, save_vectors_encoder
from components.models.shared.inference import Batch, predict_logits
from components.training.checkpoint import write_json
from components.training.loop import TrainingData
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_model
from pipelines.config.schema import Experiment
from pipelines.config.sections.bert import Bert
from pipelines.config.sections.sentence import Articles, SentenceBert, SentenceBertPretrained
from pipelines.errors import ConfigError
from pipelines.learners.neural import NeuralLearner, TrainedModel
from pipelines.learners.teaching import obtain_vectors, open_teacher, taught_texts
from pipelines.runs.record import Prepared, VocabularyFacts
from pipelines.runs.run import Run
from pipelines.runs.scoring import frame_texts, score_predictions
from pipelines.runs.starting_point import take_over

NUM_GUESSES = 10
# Windows are taken from so many tokens of a body; a vocabulary from so many characters
READ_TOKENS = 1024
READ_CHARACTERS = 1000


class SentenceLearner(NeuralLearner):
    """Trains and predicts with one encoder for titles and bodies: the competition's first two input columns."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        super().__init__(experiment, competition, run)
        model, data = experiment.model, experiment.data
        assert isinstance(model, SentenceBert | SentenceBertPretrained)
        assert isinstance(data, Articles)
        self.model_section, self.data_section = model, data
        self.vocabulary_folder = run.path / "vocabulary"
        if competition.task != "text_to_text" or len(competition.input_columns) != 2:
            raise ConfigError(
                f"data.name: articles does not suit {competition.name}; needs two columns of text and ids as answers"
            )
        self.title_column, self.body_column = map(competition.frame_column, competition.input_columns)

    # -- before training ---------------------------------------------------------------------------------------------

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Build the vocabulary from the training rows, or take a run's; look for the teacher."""
        if isinstance(self.model_section, SentenceBertPretrained):
            made: Prepared = take_over(
                self.model_section.checkpoint,
                self.run,
                kinds=(SentenceBert.name, SentenceBertPretrained.name, Bert.name),
                read_vocabulary=load_tokenizer,
            )
        else:
            texts = [*train[self.title_column], *(body[:READ_CHARACTERS] for body in train[self.body_column])]
            tokenizer = build_character_tokenizer(texts, size=self.data_section.vocabulary_size)
            tokenizer.save(self.vocabulary_folder)
            made = {"vocabulary": VocabularyFacts(num_pieces=tokenizer.size)}
        if self.data_section.teacher is not None:
            open_teacher(
                self.data_section.teacher, num_threads=1
            )  # a package that is missing ends a run before it begins
        return made

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The run's own, which `prepare` writes."""
        return load_tokenizer(self.vocabulary_folder)

    # -- texts -------------------------------------------------------------------------------------------------------

    def _encode(self, frame: DataFrame, *, has_labels: bool) -> TrainingData:
        assert has_labels, "prediction encodes titles and bodies each by themselves"
        if self.data_section.teacher is not None:
            return self._taught(frame, self.data_section.teacher)
        return ArticlePairs(
            self._ids(frame[self.title_column].tolist(), self.data_section.max_length),
            self._ids(frame[self.body_column].tolist(), READ_TOKENS),
            max_length=self.data_section.max_length,
            window_share=self.data_section.window_share,
            seed=self.experiment.seed,
        )

    def _taught(self, frame: DataFrame, teacher: str) -> TaughtTexts:
        columns = (frame[name].tolist() for name in ("id", self.title_column, self.body_column))
        texts = taught_texts(*columns, num_windows=self.data_section.num_windows)
        ids = iter(self._ids([text for group in texts for text in group], self.data_section.max_length))
        # The first process embeds, the others read
        with PartialState().main_process_first():
            vectors = obtain_vectors(
                open_teacher(teacher, num_threads=self.loop_section.num_threads or 1), texts, self.run
            )
        return TaughtTexts([[next(ids) for _ in group] for group in texts], vectors)

    def _ids(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        return self.tokenizer.encode(texts, max_length=max_length).ids

    def _collator(self) -> Callable[[list[Any]], Batch]:
        return TextGroupCollator(self.tokenizer.pad_id)

    # -- weights -----------------------------------------------------------------------------------------------------

    def _create_model(self) -> nn.Module:
        model = build_model(
            self.experiment,
            vocab_size=self.tokenizer.size,
            num_classes=None,
            task=self.competition.task,
            weights=self.run.own_weights,
        )
        assert isinstance(model, SentenceModel)
        longest = model.encoder.max_length
        if self.data_section.max_length > longest:
            raise ConfigError(f"data.max_length: {self.data_section.max_length}, but the model reads {longest} at most")
        return model

    def _load_model(self, folder: Path) -> nn.Module:
        encoder, section = load_vectors_encoder(folder), self.model_section
        return SentenceModel(encoder, temperature=section.temperature, teacher_temperature=section.teacher_temperature)

    def _save_model(self, model: nn.Module, folder: Path) -> None:
        """All that transformers, sentence-transformers and search need; mean and norm are their defaults."""
        assert isinstance(model, SentenceModel)
        save_vectors_encoder(model.encoder, folder)
        self.tokenizer.save(folder)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": self.data_section.max_length})

    # -- prediction --------------------------------------------------------------------------------------------------

    def _evaluate(self, trained: TrainedModel, valid: DataFrame, accelerator: Accelerator) -> Mapping[str, float]:
        """Every process ranks all rows, for a share of them would be an easier question."""
        scores = score_predictions(self.competition, valid, self._predict_with([trained], valid))
        return {f"valid/{name}": value for name, value in scores.items()}

    def _predict_with(self, models: Sequence[TrainedModel], frame: DataFrame) -> DataFrame:
        titles, bodies = (self._inputs(frame, column) for column in (self.title_column, self.body_column))
        encoders = [trained.model for trained in models]
        likeness = torch.stack([self._embed(one, titles) @ self._embed(one, bodies).T for one in encoders]).mean(0)
        order = np.argsort(-likeness.numpy(), axis=1, kind="stable")[:, :NUM_GUESSES]
        ids = frame["id"].to_numpy()
        best = likeness.amax(1).tolist() if len(frame) else []
        return frame_texts(frame, [" ".join(ids[row]) for row in order], best)

    def _inputs(self, frame: DataFrame, column: str) -> EncodedTexts:
        return EncodedTexts(self._ids(frame[column].tolist(), self.data_section.max_length))

    def _embed(self, model: nn.Module, data: EncodedTexts) -> Tensor:
        section = self.loop_section
        return predict_logits(
            model,
            data,
            TextCollator(self.tokenizer.pad_id),
            batch_size=section.eval_batch_size,
            precision=section.eval_precision,
        )
