"""What every model trained step by step shares in a competition: the loop, its settings, validation and prediction.

A family of models fills in how rows become examples and how its weights come and go: see `T5Learner`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from pandas import DataFrame, concat
from torch import Tensor, nn

from components.data.batching import count_plan_steps, count_steps
from components.data.target_scale import (
    TARGETS_FILE,
    TargetScale,
    load_target_scale,
    measure_targets,
    save_target_scale,
)
from components.memory.checkpointing import apply_to_model
from components.memory.host_memory import give_back_before_gradients
from components.memory.plans import parse_plan
from components.models.shared.inference import Batch, predict_logits
from components.seeding import seed_everything
from components.training.checkpoint import forecast_bytes, list_steps
from components.training.loop import LoopSettings, TrainingData, TrainingLoop, plan_epoch
from components.training.lr_finder import LrCurve, find_lr
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_optimizer, build_schedule
from pipelines.config.schema import Experiment
from pipelines.errors import ConfigError
from pipelines.learners.learner import FitResult, FoldJob
from pipelines.learners.memory import keep_budget
from pipelines.runs.processes import is_on_cpu
from pipelines.runs.record import Prepared
from pipelines.runs.run import Run, check_disk
from pipelines.runs.scoring import count_classes, frame_probabilities, is_greater_better, score_predictions


@dataclass(frozen=True)
class TrainedModel:
    """A model, and the scale of the targets that it learnt; None where it learnt them as they are."""

    model: nn.Module
    targets: TargetScale | None


class NeuralLearner(ABC):
    """Trains on accelerate and predicts; what the abstract methods return is the family's."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        self.experiment, self.competition, self.run = experiment, competition, run
        self.loop_section = experiment.loop

    # -- what a family of models fills in ----------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """As `Learner.prepare`."""

    @abstractmethod
    def _encode(self, frame: DataFrame, *, has_labels: bool) -> TrainingData:
        """The rows as unpadded examples, for training (`has_labels`) and prediction alike."""

    @abstractmethod
    def _collator(self) -> Callable[[list[Any]], Batch]:
        """Pads examples into a batch."""

    @abstractmethod
    def _create_model(self) -> nn.Module:
        """The model as training begins with it, on the CPU."""

    @abstractmethod
    def _load_model(self, folder: Path) -> nn.Module:
        """The model of a checkpoint that `_save_model` wrote."""

    @abstractmethod
    def _save_model(self, model: nn.Module, folder: Path) -> None:
        """Write all that `_load_model` needs."""

    def _training_rows(self, train: DataFrame) -> DataFrame:
        """The rows of an epoch, where they are not the fold's as they stand."""
        return train

    def _prediction_collators(self) -> Sequence[Callable[[list[Any]], Batch]]:
        """The views of a row whose predictions are averaged; one, as a rule."""
        return [self._collator()]

    def draw_figures(self, job: FoldJob, checkpoint: Path, folder: Path) -> Sequence[Path]:
        """As `Learner.draw_figures`: none."""
        return []

    @property
    def _num_workers(self) -> int:
        return getattr(self.experiment.data, "num_workers", 0)

    def _fit_to_rows(self, model: nn.Module, data: TrainingData) -> None:  # noqa: B027 - most models have nothing to do
        """What a new model takes over from the rows that it will be trained on."""

    @property
    def _num_classes(self) -> int | None:
        return count_classes(self.competition)

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(self, job: FoldJob) -> FitResult:
        """Train one fold on accelerate and return its best checkpoint."""
        loop = self._build_loop(job)
        with job.observer.screen.training(job.name, loop.settings.num_steps):
            progress = loop.run()
        loop.accelerator.free_memory()
        _, step = progress.best[0]
        return FitResult(f"checkpoints/step-{step:08d}", progress.step, loop.drop_former_point)

    def find_lr(self, job: FoldJob) -> LrCurve:
        """The loss over a sweep of rates from the weights that training starts with."""
        optimizer = self.experiment.optimizer
        assert optimizer is not None
        loop = self._build_loop(job)
        if loop.memory is not None:
            loop.memory.begin("")
        return find_lr(
            loop.model,
            loop.plain_optimizer,
            loop.first_epoch(),
            base_lr=optimizer.lr,
            max_grad_norm=self.loop_section.max_grad_norm,
        )

    def _build_loop(self, job: FoldJob) -> TrainingLoop:
        section = self.loop_section
        accelerator = Accelerator(cpu=is_on_cpu(section.device), mixed_precision=section.mixed_precision)
        rows = self._training_rows(job.train)
        targets = self._measure_targets(rows, job.folder)
        data = self._encode(_standardised(rows, targets), has_labels=True)
        seed_everything(job.seed)
        model = self._planned_model()
        self._fit_to_rows(model, data)
        model = model.to(accelerator.device)
        give_back_before_gradients(model)
        settings = self._settings(data, job)
        if accelerator.is_main_process:
            self._check_disk(model, settings, job.folder)
            if targets is not None:
                # From here on a resume knows that this fold learns standardised targets.
                save_target_scale(targets, job.folder)
        # Every process draws its own dropout, whatever the first one has drawn for the weights.
        seed_everything(job.seed + accelerator.process_index)
        valid = self._limited(job.valid)
        loop = TrainingLoop(
            accelerator=accelerator,
            model=model,
            optimizer=build_optimizer(self.experiment, model),
            schedule=build_schedule(self.experiment, num_steps=settings.num_steps),
            data=data,
            collate=self._collator(),
            evaluate=None
            if valid is None
            else lambda model: self._evaluate(TrainedModel(model, targets), valid, accelerator),
            save_model=lambda model, folder: self._save(TrainedModel(model, targets), folder),
            settings=settings,
            folder=job.folder,
            observer=job.observer,
        )
        if section.memory_budget is not None:
            loop.memory = keep_budget(loop, section.memory_budget, self.run, job)
        return loop

    def _measure_targets(self, rows: DataFrame, folder: Path) -> TargetScale | None:
        """The scale of a regression's training targets; None for other tasks, whose labels are learnt as they are."""
        if self.competition.task != "regression":
            return None
        if list_steps(folder / "resume") and not (folder / TARGETS_FILE).is_file():
            # A former version began this fold, and its weights know the targets as they are.
            return None
        return measure_targets(rows["label"])

    def _save(self, trained: TrainedModel, folder: Path) -> None:
        self._save_model(trained.model, folder)
        if trained.targets is not None:
            save_target_scale(trained.targets, folder)

    def _planned_model(self) -> nn.Module:
        """The model with its activation plan on each of its stacks of layers."""
        model, text = self._create_model(), self.loop_section.activation_checkpointing
        if not getattr(model, "layer_stacks", ()) and (text != "none" or self.loop_section.memory_budget is not None):
            field = "activation_checkpointing" if text != "none" else "memory_budget"
            given, name = getattr(self.loop_section, field), self.experiment.model.name
            wanted = "none" if text != "none" else "null"
            raise ConfigError(f"training.{field}: {given!r}, but {name} has no layers; needs {wanted}")
        if text != "none":
            try:
                apply_to_model(model, parse_plan(text))
            except ValueError as error:
                raise ConfigError(f"training.activation_checkpointing: {error}") from error
        return model

    def _settings(self, data: TrainingData, job: FoldJob) -> LoopSettings:
        section, num_epochs = self.loop_section, self.loop_section.num_epochs or 1
        accumulation = section.gradient_accumulation_steps
        if section.tokens_per_batch is None:
            counts = [count_steps(len(data), section.batch_size, accumulation, 1)] * num_epochs
        else:
            # Every epoch's plan is another, and so may be their number of batches
            plans = (plan_epoch(data, self._settings_of(1, 1, job), epoch) for epoch in range(num_epochs))
            counts = [count_plan_steps(plan, accumulation) for plan in plans]
        return self._settings_of(section.num_steps or sum(counts), section.eval_every_steps or counts[0], job)

    def _settings_of(self, num_steps: int, eval_every_steps: int, job: FoldJob) -> LoopSettings:
        section = self.loop_section
        return LoopSettings(
            num_steps=num_steps,
            batch_size=section.batch_size,
            tokens_per_batch=section.tokens_per_batch,
            pad_to_multiple_of=section.pad_to_multiple_of,
            gradient_accumulation_steps=section.gradient_accumulation_steps,
            max_grad_norm=section.max_grad_norm,
            ema_decay=section.ema_decay,
            eval_every_steps=eval_every_steps,
            early_stopping_patience=section.early_stopping_patience,
            greater_is_better=is_greater_better(self.competition),
            num_best_checkpoints=section.num_best_checkpoints,
            checkpoint_every_steps=section.checkpoint_every_steps,
            log_every_steps=section.log_every_steps,
            bucket_batches=section.bucket_batches,
            num_workers=self._num_workers,
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
        limit = getattr(self.experiment.data, "max_valid_rows", None)
        if valid is None or limit is None or len(valid) <= limit:
            return valid
        return valid.sample(limit, random_state=self.experiment.seed)

    def _evaluate(self, trained: TrainedModel, valid: DataFrame, accelerator: Accelerator) -> Mapping[str, float]:
        """Scores of the validation rows, each process predicting its share."""
        rank, world = accelerator.process_index, accelerator.num_processes
        share = self._predict_with([trained], valid.iloc[rank::world])
        if world > 1:
            parts: list[DataFrame] = gather_object([share])
            share = _interleave(parts)
        scores = score_predictions(self.competition, valid, share)
        return {f"valid/{name}": value for name, value in scores.items()}

    # -- prediction --------------------------------------------------------------------------------------------------

    def predict(self, checkpoints: Sequence[Path], frame: DataFrame) -> DataFrame:
        """Predictions by all checkpoints together: the mean of their probabilities, or one joint decoding."""
        device = "cpu" if is_on_cpu(self.loop_section.device) else "cuda"
        models = [
            TrainedModel(self._load_predictor(folder).to(device), load_target_scale(folder)) for folder in checkpoints
        ]
        return self._predict_with(models, frame)

    def _load_predictor(self, folder: Path) -> nn.Module:
        """The model of a checkpoint in the form that predicts fastest."""
        return self._load_model(folder)

    def _predict_with(self, models: Sequence[TrainedModel], frame: DataFrame) -> DataFrame:
        section, data = self.loop_section, self._encode(frame, has_labels=False)
        outputs = [
            self._activate(
                predict_logits(
                    trained.model,
                    data,
                    collate,
                    batch_size=section.eval_batch_size,
                    precision=section.eval_precision,
                    num_workers=self._num_workers,
                ),
                trained.targets,
            )
            for trained in models
            for collate in self._prediction_collators()
        ]
        return frame_probabilities(self.competition, frame, torch.stack(outputs).mean(0).numpy())

    def _activate(self, logits: Tensor, targets: TargetScale | None) -> Tensor:
        """What logits say in the competition's terms: values in their unit, or probabilities."""
        if self.competition.task == "regression":
            return logits if targets is None else torch.from_numpy(targets.restore(logits.numpy()))
        return logits.sigmoid() if self.competition.task == "multilabel" else logits.softmax(-1)


def _standardised(rows: DataFrame, targets: TargetScale | None) -> DataFrame:
    return rows if targets is None else rows.assign(label=targets.standardise(rows["label"]))


def _interleave(parts: Sequence[DataFrame]) -> DataFrame:
    """The inverse of taking every n-th row from row 0, 1, …, n - 1 on."""
    order = np.argsort(
        np.concatenate([np.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)]), kind="stable"
    )
    return concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)
