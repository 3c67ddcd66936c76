"""The training loop: one, explicit, on accelerate, resumable to the last bit.

It knows a model that maps a batch to a loss, a dataset of unpadded examples and a plan of batches; what the examples
mean, how a validation score is computed and where curves are drawn is the caller's. One *step* is one update of the
weights from `gradient_accumulation_steps` micro-steps; a *global batch* is split over the processes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from components.data.batching import plan_batches, plan_token_batches, shard_batch
from components.data.text.dataset import padded_width
from components.files.digests import sealed_folder
from components.losses.by_task import count_targets
from components.memory.out_of_memory import MemoryKeeper, StepStart, count_rows, divide_window, find_norms
from components.optim.schedules import Schedule, apply_schedule
from components.training import checkpoint
from components.training.ema import WeightAverage
from components.training.gradient_clipping import clip_plain_gradients
from components.training.history import History
from components.training.resume import Progress, TrainingState

Batch = dict[str, Tensor]


class TrainingData(Protocol):
    """Unpadded examples, and keys that tell which of them pad to the same width."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Mapping[str, Any]: ...
    def padding_keys(self) -> Sequence[int]: ...


@runtime_checkable
class ChangingData(TrainingData, Protocol):
    """Examples that differ from epoch to epoch: each is a pure function of its row and the epoch that was begun."""

    def begin_epoch(self, epoch: int, /) -> None: ...


class Observer(Protocol):
    """Who watches a training; every call returns at once."""

    def on_step(self, step: int, *, was_evaluated: bool) -> None: ...
    def on_log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None: ...
    def on_note(self, step: int, text: str, *, about: str = "memory") -> None: ...
    def should_stop(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long, in what portions, and what is kept; the experiment's `training` section says what each means."""

    num_steps: int
    batch_size: int
    tokens_per_batch: int | None = None
    pad_to_multiple_of: int = 1
    gradient_accumulation_steps: int = 1
    max_grad_norm: float | None = 1.0
    ema_decay: float | None = None
    eval_every_steps: int | None = None
    early_stopping_patience: int | None = None
    greater_is_better: bool = True
    num_best_checkpoints: int = 1
    checkpoint_every_steps: int | None = None
    log_every_steps: int = 20
    bucket_batches: int = 50
    num_workers: int = 0
    seed: int = 0


class Interrupted(Exception):
    """The observer asked to stop; a resume point was written."""


class TrainingLoop:
    """Trains `model` in `folder`, from the newest resume point there if there is one.

    `evaluate(model)` returns scores, the deciding one first; `save_model(model, folder)` writes a checkpoint. The
    folder receives `checkpoints/step-*` (the best), `resume/step-*` (the newest two) and `history.jsonl`.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        data: TrainingData,
        collate: Callable[[list[Any]], Batch],
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
        save_model: Callable[[nn.Module, Path], None],
        settings: LoopSettings,
        folder: Path,
        observer: Observer,
    ) -> None:
        if len(data) == 0:
            raise ValueError("there is no row to train on")
        self.accelerator, self.settings, self.observer = accelerator, settings, observer
        self.schedule, self.data, self.collate = schedule, data, collate
        self.evaluate, self.save_model = evaluate, save_model
        self.plain_model, self.plain_optimizer = model, optimizer
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.parameters = list(self.model.parameters())
        self.norms = find_norms(self.plain_model)
        # Adafactor's relative step sets its own rate, and the groups carry none.
        self.has_rate = all(group["lr"] is not None for group in optimizer.param_groups)
        self.average = WeightAverage(model, settings.ema_decay) if settings.ema_decay else None
        self.progress = Progress()
        self.checkpoints, self.resume_points = folder / "checkpoints", folder / "resume"
        self.history = History(folder / "history.jsonl", is_writer=accelerator.is_main_process)
        self.state = TrainingState(
            accelerator, model, optimizer, self.average, self.progress, self.history, self.checkpoints
        )
        self.pending_losses: list[Tensor] = []
        self.last_log = (0, 0.0)
        self.named_checkpoints: set[int] = set()  # by the newest resume point
        self.memory: MemoryKeeper | None = None

    def run(self) -> Progress:
        """Train to the end, or to an early stop; returns the final progress, best checkpoints first."""
        self._resume()
        if self.memory is not None:
            self.progress.activation_plan = self.memory.begin(self.progress.activation_plan)
        self.last_log = (self.progress.step, time.perf_counter())
        self.model.train()
        windows = self._windows()
        while self.progress.step < self.settings.num_steps and not self.progress.is_stopped_early:
            self._step(next(windows))
            self._after_step()
        self.history.close()
        return self.progress

    def _resume(self) -> None:
        notes: list[str] = []
        self.pending_losses = self.state.load_newest(self.resume_points, notes)
        for note in notes:
            self.observer.on_note(self.progress.step, note, about="resume")
        self.named_checkpoints = {step for _, step in self.progress.best}

    # -- one step ----------------------------------------------------------------------------------------------------

    def _windows(self) -> Iterator[list[tuple[Batch, bool]]]:
        """The micro-batches of each step in order, from the current position on, epoch after epoch."""
        progress = self.progress
        while True:
            loader = self._load_epoch(progress.epoch, progress.position)
            for first in loader:
                window = [first]
                while len(window) < self.settings.gradient_accumulation_steps:
                    following = next(loader, None)
                    if following is None:
                        break  # the epoch's leftover micro-batches make a step of their own
                    window.append(following)
                progress.position += len(window)
                yield window
            progress.epoch, progress.position = progress.epoch + 1, 0

    def largest_batch(self) -> Batch:
        """This process's share of the first epoch's largest micro-batch, on the device."""
        settings, accelerator = self.settings, self.accelerator
        if isinstance(self.data, ChangingData):
            self.data.begin_epoch(0)
        keys, plan = self.data.padding_keys(), plan_epoch(self.data, settings, 0)
        rows = max(plan, key=lambda batch: len(batch) * max(keys[row] for row in batch))
        share = shard_batch(rows, accelerator.process_index, accelerator.num_processes) or rows[:1]
        batch = self.collate([self.data[row] for row in share])
        return {key: value.to(accelerator.device) for key, value in batch.items()}

    def first_epoch(self) -> Iterator[Batch]:
        """The micro-batches that training begins with, for who wants to try something on them before."""
        return (batch for batch, _ in self._load_epoch(0, 0))

    def _load_epoch(self, epoch: int, start: int) -> Iterator[tuple[Batch, bool]]:
        """This process's share of each micro-batch, and whether it is only there to take part."""
        settings, accelerator = self.settings, self.accelerator
        if isinstance(self.data, ChangingData):
            self.data.begin_epoch(epoch)
        plan = plan_epoch(self.data, settings, epoch)[start:]
        shards = [shard_batch(batch, accelerator.process_index, accelerator.num_processes) for batch in plan]
        loader: DataLoader[Any] = DataLoader(
            self.data,  # type: ignore[arg-type]
            # A process without a share of a small last batch computes a row of weight 0 to join in the reductions.
            batch_sampler=[shard or batch[:1] for shard, batch in zip(shards, plan, strict=True)],
            collate_fn=self.collate,
            num_workers=settings.num_workers,
            # Its own generator: by default a loader draws from the global one, and a resume would draw once more.
            generator=torch.Generator().manual_seed(settings.seed + epoch),
        )
        for batch, shard in zip(loader, shards, strict=True):
            yield batch, not shard

    def _step(self, window: list[tuple[Batch, bool]]) -> None:
        if self.has_rate:
            apply_schedule(self.plain_optimizer, self.schedule(self.progress.step))
        start = StepStart(self.accelerator.device, self.norms)
        while (losses := self._try(window)) is None:
            self.optimizer.zero_grad(set_to_none=True)
            start.restore()
            self._make_room(window)
        self._update()
        self.pending_losses.append(torch.stack(losses).sum())
        self.progress.step += 1
        if self.average is not None:
            self.average.update(self.progress.step)

    def _update(self) -> None:
        max_norm, has_scaler = self.settings.max_grad_norm, self.accelerator.scaler is not None
        if max_norm is not None and (has_scaler or not clip_plain_gradients(self.parameters, max_norm)):
            self.accelerator.clip_grad_norm_(self.parameters, max_norm)
        # What accelerate wraps around an optimizer takes .8 ms a step, and has work with a scaler only.
        optimizer = self.optimizer if has_scaler else self.plain_optimizer
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _try(self, window: list[tuple[Batch, bool]]) -> list[Tensor] | None:
        """The losses of a step whose gradients were accumulated; None where memory did not suffice."""
        try:
            return self._accumulate(divide_window(window, self.progress.num_parts))
        except torch.OutOfMemoryError as error:
            if self.accelerator.num_processes > 1:
                # The others wait in a reduction, and cannot begin again
                error.add_note("With several processes a step is not begun again: use a smaller training.batch_size")
                raise
            return None  # and with the error go the frames that hold what the step has made

    def _accumulate(self, window: list[tuple[Batch, bool]]) -> list[Tensor]:
        accelerator = self.accelerator
        weights, total = self._weigh(window)
        losses = []
        for index, (batch, _) in enumerate(window):
            batch = {key: value.to(accelerator.device) for key, value in batch.items()}
            is_last = index == len(window) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.model):
                loss = self.model(**batch).loss * (weights[index] / total)
                # DDP averages gradients over the processes where their sum is meant.
                accelerator.backward(loss * accelerator.num_processes)
            losses.append(loss.detach())
        return losses

    def _make_room(self, window: list[tuple[Batch, bool]]) -> None:
        """Let layers keep less, or halve the micro-batches; OutOfMemoryError where neither can be."""
        progress = self.progress
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        plan = self.memory.reduce(progress.activation_plan) if self.memory else None
        if plan is not None:
            progress.activation_plan, remedy = plan, f"layers keep less: {plan}"
        else:
            if max(count_rows(batch) for batch, _ in window) <= progress.num_parts:
                raise torch.OutOfMemoryError(
                    f"step {progress.step + 1}: memory does not suffice for one row; use shorter rows, a smaller model "
                    "or training.activation_checkpointing=recompute"
                )
            progress.num_parts *= 2
            remedy = f"micro-batches go in {progress.num_parts} parts, the batch stays as it was"
        self.observer.on_note(progress.step, f"out of memory at step {progress.step + 1}; {remedy}")

    def _weigh(self, window: list[tuple[Batch, bool]]) -> tuple[Tensor, Tensor]:
        """Targets per micro-batch here and in the whole step, so that the loss is the mean over all of them."""
        counts = [count_targets(batch["labels"]) * (not is_empty) for batch, is_empty in window]
        weights = torch.stack(counts).to(self.accelerator.device, torch.float32)
        total = self.accelerator.reduce(weights.sum(), "sum")
        assert isinstance(total, Tensor)
        return weights, total.clamp(min=1.0)

    # -- what follows a step -----------------------------------------------------------------------------------------

    def _after_step(self) -> None:
        settings, step = self.settings, self.progress.step
        is_final = step == settings.num_steps
        is_evaluated = is_final or _is_due(step, settings.eval_every_steps)
        if is_final or _is_due(step, settings.log_every_steps):
            self._log()
        if is_evaluated:
            self._evaluate()
        self.observer.on_step(step, was_evaluated=is_evaluated)
        stops = self._should_stop()
        if is_evaluated or stops or _is_due(step, settings.checkpoint_every_steps):
            self._save_resume_point()
        if stops and not is_final:
            self.history.close()
            raise Interrupted(f"stopped after step {step} of {settings.num_steps}")

    def _should_stop(self) -> bool:
        wish = self.observer.should_stop()
        if self.accelerator.num_processes == 1:
            return wish
        # All stop after the same step, or the others would wait for ever in their next reduction.
        votes = self.accelerator.reduce(torch.tensor(float(wish), device=self.accelerator.device), "sum")
        return bool(votes > 0)

    def _log(self) -> None:
        step, (last_step, last_time), now = self.progress.step, self.last_log, time.perf_counter()
        losses = self.accelerator.reduce(torch.stack(self.pending_losses), "sum")
        assert isinstance(losses, Tensor)
        loss = float(losses.mean())
        if not math.isfinite(loss) and self.accelerator.scaler is None:
            raise FloatingPointError(
                f"the loss is {loss} at step {step}; a lower optimizer.lr, more warm-up steps or "
                "training.max_grad_norm=1.0 usually cure it"
            )
        metrics = {"train/loss": loss}
        if self.has_rate:
            # Under layer-wise decay the groups differ, and the largest is the rate that the experiment states.
            metrics["train/lr"] = max(float(group["lr"]) for group in self.plain_optimizer.param_groups)
        self.history.append(step, metrics)
        rate = (step - last_step) / max(now - last_time, 1e-9)
        self.observer.on_log(step, metrics | {"train/steps_per_second": rate})
        self.pending_losses, self.last_log = [], (step, now)

    def _evaluate(self) -> None:
        """Score the weights (their average, where one is kept) and keep them if they are among the best."""
        progress, patience = self.progress, self.settings.early_stopping_patience
        self.model.eval()
        with self.average.applied() if self.average else nullcontext():
            scores = dict(self.evaluate(self.plain_model)) if self.evaluate else {}
            is_best = self._keep_best(next(iter(scores.values()), math.nan))
        self.model.train()
        if scores:
            self.history.append(progress.step, scores)
            self.observer.on_evaluation(progress.step, scores)
        progress.evaluations_without_gain = 0 if is_best else progress.evaluations_without_gain + 1
        progress.is_stopped_early = patience is not None and progress.evaluations_without_gain >= patience
        self.last_log = (progress.step, time.perf_counter())

    def _keep_best(self, score: float) -> bool:
        """Write a checkpoint if the score is among the best; returns whether it is the best of all."""
        progress = self.progress
        entry = (score, progress.step)
        progress.best = sorted([*progress.best, entry], key=self._rank)[: self.settings.num_best_checkpoints]
        if entry in progress.best and self.accelerator.is_main_process:
            with sealed_folder(checkpoint.step_folder(self.checkpoints, progress.step)) as folder:
                self.save_model(self.plain_model, folder)
        self.accelerator.wait_for_everyone()
        return entry == progress.best[0]

    def _rank(self, entry: tuple[float, int]) -> tuple[float, int]:
        """Sorts best first; among equal scores the earlier step, which trained less, is the better one."""
        score, step = entry
        if math.isnan(score):
            return math.inf, -step
        return (-score if self.settings.greater_is_better else score), step

    def _save_resume_point(self) -> None:
        self.progress.history_bytes = self.history.flush()
        self.state.save(self.resume_points, self.pending_losses)
        best = {step for _, step in self.progress.best}
        if self.accelerator.is_main_process:
            # Only now does neither of the two resume points name the checkpoints that fell out of the best.
            checkpoint.prune_steps(self.checkpoints, keep=best | self.named_checkpoints)
        self.named_checkpoints = best

    def drop_former_point(self) -> None:
        """Of a training that is over: leave the newest resume point, and only the checkpoints that it names."""
        checkpoint.prune_steps(self.resume_points, keep={self.progress.step})
        checkpoint.prune_steps(self.checkpoints, keep={step for _, step in self.progress.best})


def plan_epoch(data: TrainingData, settings: LoopSettings, epoch: int) -> list[list[int]]:
    """The rows of each global micro-batch of an epoch; with a token budget the keys must be lengths."""
    keys = data.padding_keys()
    shared = {"seed": settings.seed, "epoch": epoch, "bucket_batches": settings.bucket_batches}
    if settings.tokens_per_batch is None:
        return plan_batches(keys, settings.batch_size, **shared)
    widths = [padded_width(key, settings.pad_to_multiple_of) for key in keys]
    return plan_token_batches(widths, settings.tokens_per_batch, max_batch_size=settings.batch_size, **shared)


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
