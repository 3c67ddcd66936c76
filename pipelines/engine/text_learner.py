"""T5 in a competition: prompts to token ids, the loop, and predictions in the competition's words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from pandas import DataFrame
from torch import Tensor, nn

from components.data.balancing import balance_rows
from components.data.batching import count_steps
from components.data.text import EncodedTexts, TextCollator
from components.data.vocabulary import Vocabulary, load_vocabulary
from components.models.t5 import T5Model, load_t5, save_t5
from components.training.activation_checkpointing import apply_plan
from components.training.activation_plans import parse_plan
from components.training.checkpoint import forecast_bytes, read_json, write_json
from components.training.inference import predict_logits, predict_sequences
from components.training.loop import LoopSettings, TrainingLoop
from components.training.lr_finder import LrCurve, find_lr
from components.training.resume import Progress
from components.training.seeding import seed_everything
from pipelines.build import build_model, build_optimizer, build_schedule
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.config.sections.data import Text
from pipelines.config.sections.model import T5FromScratch, T5Pretrained
from pipelines.engine.learner import FitResult, FoldJob
from pipelines.engine.processes import is_on_cpu
from pipelines.engine.prompts import build_prompts, list_texts
from pipelines.engine.run_directory import RunDirectory, check_disk
from pipelines.engine.scoring import (
    count_classes,
    encode_labels,
    frame_probabilities,
    frame_texts,
    is_greater_better,
    score_predictions,
)
from pipelines.engine.starting_point import own_weights, take_over
from pipelines.engine.vocabularies import obtain_vocabulary, rows_to_keep

TARGET_IDS = "target_ids.json"


class TextLearner:
    """Trains and predicts with a T5 of either head."""

    def __init__(self, experiment: Experiment, competition: Competition, run: RunDirectory) -> None:
        model, data = experiment.model, experiment.data
        assert isinstance(model, T5FromScratch | T5Pretrained)
        assert isinstance(data, Text)
        self.experiment, self.competition, self.run = experiment, competition, run
        self.model_section, self.data_section, self.loop_section = model, data, experiment.loop
        self.is_seq2seq = model.head == "seq2seq"
        self.vocabulary_folder = run.path / "vocabulary"
        if self.loop_section.num_threads:
            torch.set_num_threads(self.loop_section.num_threads)

    # -- text and ids ------------------------------------------------------------------------------------------------

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Mapping[str, object]:
        """Obtain the vocabulary, and the weights where they are another run's."""
        if isinstance(self.model_section, T5Pretrained) and self.model_section.starts_from_run:
            made: Mapping[str, object] = take_over(self.model_section.checkpoint, self.run)
        else:
            made = obtain_vocabulary(
                self.model_section,
                self.data_section,
                list_texts(self.competition, train, test),
                self.vocabulary_folder,
                also=also,
                reserved=self.competition.reserved_pieces,
            )
        self._keep_target_ids(train)
        return made

    def _keep_target_ids(self, train: DataFrame) -> None:
        if self.model_section.target_pieces_only:
            written = load_vocabulary(self.vocabulary_folder).encode(train["label"].tolist())
            write_json(self.vocabulary_folder / TARGET_IDS, sorted({token for ids in written for token in ids}))

    def _allowed_ids(self) -> Tensor | None:
        if not self.model_section.target_pieces_only:
            return None
        return torch.tensor(read_json(self.vocabulary_folder / TARGET_IDS))

    def _encode(self, frame: DataFrame, vocabulary: Vocabulary, *, has_labels: bool) -> EncodedTexts:
        sources = vocabulary.encode(
            build_prompts(self.competition, frame), max_length=self.data_section.max_source_length
        )
        return EncodedTexts(sources, self._targets(frame, vocabulary) if has_labels else None)

    def _targets(self, frame: DataFrame, vocabulary: Vocabulary) -> Sequence[Any]:
        if self.is_seq2seq:
            return vocabulary.encode(frame["label"].tolist(), max_length=self.data_section.max_target_length)
        return list(encode_labels(self.competition, frame))

    @property
    def _num_classes(self) -> int | None:
        return None if self.is_seq2seq else count_classes(self.competition)

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(self, job: FoldJob) -> FitResult:
        """Train one fold on accelerate and return its best checkpoint."""
        loop = self._build_loop(job)
        with job.observer.screen.training(job.name, loop.settings.num_steps):
            progress = loop.run()
        loop.accelerator.free_memory()
        return _fit_result(progress)

    def find_lr(self, job: FoldJob) -> LrCurve:
        """The loss over a sweep of rates from the weights that training starts with."""
        optimizer = self.experiment.optimizer
        assert optimizer is not None
        loop = self._build_loop(job)
        return find_lr(
            loop.model,
            loop.plain_optimizer,
            loop.first_epoch(),
            base_lr=optimizer.lr,
            max_grad_norm=self.loop_section.max_grad_norm,
        )

    def _build_loop(self, job: FoldJob) -> TrainingLoop:
        section = self.loop_section
        vocabulary = load_vocabulary(self.vocabulary_folder)
        accelerator = Accelerator(cpu=is_on_cpu(section.device), mixed_precision=section.mixed_precision)
        data = self._encode(self._balanced(job.train), vocabulary, has_labels=True)
        seed_everything(job.seed)
        model = self._build_model(vocabulary).to(accelerator.device)
        settings = self._settings(len(data), job)
        if accelerator.is_main_process:
            self._check_disk(model, settings, job.folder)
        # Every process draws its own dropout, whatever the first one has drawn for the weights.
        seed_everything(job.seed + accelerator.process_index)
        valid = self._limited(job.valid)
        return TrainingLoop(
            accelerator=accelerator,
            model=model,
            optimizer=build_optimizer(self.experiment, model),
            schedule=build_schedule(self.experiment, num_steps=settings.num_steps),
            data=data,
            collate=TextCollator(vocabulary.pad_id, section.pad_to_multiple_of),
            evaluate=None if valid is None else lambda model: self._evaluate(model, valid, accelerator),
            save_model=_save,
            settings=settings,
            folder=job.folder,
            observer=job.observer,
        )

    def _build_model(self, vocabulary: Vocabulary) -> T5Model:
        model = build_model(
            self.experiment,
            vocab_size=vocabulary.size,
            num_classes=self._num_classes,
            task=self.competition.task,
            weights=own_weights(self.run),
            kept_ids=rows_to_keep(self.vocabulary_folder),
        )
        assert isinstance(model, T5Model)
        for stack in model.layer_stacks:
            apply_plan(stack, parse_plan(self.loop_section.activation_checkpointing))
        return model

    def _balanced(self, train: DataFrame) -> DataFrame:
        group, exponent = self.competition.metric_group, self.data_section.balance_exponent
        if group is None or exponent == 1.0:
            return train
        return train.iloc[balance_rows(train[group].tolist(), exponent, seed=self.experiment.seed)]

    def _settings(self, num_rows: int, job: FoldJob) -> LoopSettings:
        section = self.loop_section
        per_epoch = count_steps(num_rows, section.batch_size, section.gradient_accumulation_steps, 1)
        return LoopSettings(
            num_steps=section.num_steps or per_epoch * (section.num_epochs or 1),
            batch_size=section.batch_size,
            gradient_accumulation_steps=section.gradient_accumulation_steps,
            max_grad_norm=section.max_grad_norm,
            ema_decay=section.ema_decay,
            eval_every_steps=section.eval_every_steps or per_epoch,
            early_stopping_patience=section.early_stopping_patience,
            greater_is_better=is_greater_better(self.competition),
            num_best_checkpoints=section.num_best_checkpoints,
            checkpoint_every_steps=section.checkpoint_every_steps,
            log_every_steps=section.log_every_steps,
            bucket_batches=section.bucket_batches,
            seed=job.seed,
        )

    def _check_disk(self, model: nn.Module, settings: LoopSettings, folder: Path) -> None:
        optimizer = self.experiment.optimizer
        needed = forecast_bytes(
            model,
            num_best_checkpoints=settings.num_best_checkpoints,
            has_ema=settings.ema_decay is not None,
            states_per_parameter=2.0 if optimizer is not None and optimizer.name == "adamw" else 0.1,
        )
        check_disk(folder, needed)

    def _limited(self, valid: DataFrame | None) -> DataFrame | None:
        limit = self.data_section.max_valid_rows
        if valid is None or limit is None or len(valid) <= limit:
            return valid
        return valid.sample(limit, random_state=self.experiment.seed)

    def _evaluate(self, model: nn.Module, valid: DataFrame, accelerator: Accelerator) -> Mapping[str, float]:
        """Scores of the validation rows, each process predicting its share."""
        rank, world = accelerator.process_index, accelerator.num_processes
        share = self._predict_with([model], valid.iloc[rank::world])
        if world > 1:
            parts: list[DataFrame] = gather_object([share])
            share = _interleave(parts)
        scores = score_predictions(self.competition, valid, share)
        return {f"valid/{name}": value for name, value in scores.items()}

    # -- prediction --------------------------------------------------------------------------------------------------

    def predict(self, checkpoints: Sequence[Path], frame: DataFrame) -> DataFrame:
        """Joint decoding by all checkpoints, or the mean of their probabilities."""
        device = "cpu" if is_on_cpu(self.loop_section.device) else "cuda"
        models = [
            load_t5(folder, head=self.model_section.head, num_classes=self._num_classes).to(device)
            for folder in checkpoints
        ]
        return self._predict_with(models, frame)

    def _predict_with(self, models: Sequence[nn.Module], frame: DataFrame) -> DataFrame:
        vocabulary = load_vocabulary(self.vocabulary_folder)
        data = self._encode(frame, vocabulary, has_labels=False)
        collate = TextCollator(vocabulary.pad_id, self.loop_section.pad_to_multiple_of)
        batch_size, precision = self.loop_section.eval_batch_size, self.loop_section.eval_precision
        if self.is_seq2seq:
            sequences, scores = predict_sequences(
                models,  # type: ignore[arg-type]
                data,
                collate,
                batch_size=batch_size,
                max_length=self.data_section.max_target_length,
                num_beams=self.model_section.num_beams,
                length_penalty=self.model_section.length_penalty,
                precision=precision,
                allowed_ids=self._allowed_ids(),
            )
            return frame_texts(frame, vocabulary.decode(sequences), scores)
        logits = [predict_logits(model, data, collate, batch_size=batch_size, precision=precision) for model in models]
        mean = torch.stack([self._activate(each) for each in logits]).mean(0).numpy()
        return frame_probabilities(self.competition, frame, mean)

    def _activate(self, logits: Tensor) -> Tensor:
        if self.competition.task == "regression":
            return logits
        return logits.sigmoid() if self.competition.task == "multilabel" else logits.softmax(-1)


def _save(model: nn.Module, folder: Path) -> None:
    assert isinstance(model, T5Model)
    save_t5(model, folder)


def _interleave(parts: Sequence[DataFrame]) -> DataFrame:
    """The inverse of taking every n-th row from row 0, 1, …, n - 1 on."""
    from pandas import concat

    order = np.argsort(
        np.concatenate([np.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)]), kind="stable"
    )
    return concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)


def _fit_result(progress: Progress) -> FitResult:
    _, step = progress.best[0]
    return FitResult(checkpoint=f"checkpoints/step-{step:08d}", num_steps=progress.step)
