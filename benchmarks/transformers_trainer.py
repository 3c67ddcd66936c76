"""transformers' Trainer as a contender at its best: everything off that costs time and is not training."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import transformers
from taking_turns import Clock
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments


def silence() -> None:
    """Before weights are loaded, which says much."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class Evaluation(TrainerCallback):
    """Scores transformers' model at the steps at which ours is scored."""

    def __init__(self, clock: Clock, score: Callable[[Any], float], every: int) -> None:
        self.clock, self.score, self.every = clock, score, every

    def on_step_end(self, args: object, state: Any, control: object, model: Any = None, **rest: object) -> None:  # noqa: ANN401
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            model.eval()
            self.clock.evaluate(state.global_step, lambda: self.score(model))
            model.train()


def train_theirs(
    model: Any,  # noqa: ANN401
    clock: Clock,
    *,
    trainer: type[Trainer],
    arguments: type[TrainingArguments],
    data: object,
    collate: Callable[[list[Any]], Any],
    optimizers: tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR],
    score: Callable[[Any], float],
    eval_every: int,
    folder: Path,
    **settings: object,
) -> None:
    """Train with `settings` on top of batches by length, no files, no logs, no progress bar."""
    runner = trainer(
        model=model,
        args=arguments(str(folder), **_quiet(arguments), **settings),  # type: ignore[arg-type]
        train_dataset=data,
        data_collator=collate,
        optimizers=optimizers,
        callbacks=[Evaluation(clock, score, eval_every)],
    )
    runner.remove_callback(PrinterCallback)
    clock.start()
    runner.train()


def _quiet(arguments: type[TrainingArguments]) -> dict[str, object]:
    settings: dict[str, object] = {
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    # The switch has changed its name between versions.
    if "train_sampling_strategy" in {field.name for field in fields(arguments)}:
        return settings | {"train_sampling_strategy": "group_by_length"}
    return settings | {"group_by_length": True}
