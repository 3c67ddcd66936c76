"""Time and memory of a whole fine-tuning step of mT5-small, against transformers' Seq2SeqTrainer with its Adafactor.

    .venv/bin/python benchmarks/t5_finetune_step.py --threads 2

The architecture is that of google/mt5-small with its two matrices of 250,112 pieces (300 M parameters, random weights)
and 16 examples of 64 source and 64 target tokens; then the same cut to 8,192 pieces, as trimming to a corpus does.
Both use Adafactor at a constant rate as the Trainer sets it (scale_parameter and relative_step off), dropout of .1 and
gradients clipped at norm 1, which is the Trainer's default. Each turn is a process of its own, ours and theirs by
turns; its first step is not counted. On a CPU subnormal numbers are flushed for both: probabilities of random weights
hold many, for which Intel's processors make theirs wait minutes.

Two measures of the memory that a step takes above the weights. `torch MB` is the peak of what torch's allocator handed
out, from the profiler's record of every allocation, in a turn of its own (the first step, optimizer state included).
`process MB` is the resident high-water mark, reset through /proc/self/clear_refs, above what the process holds between
two steps after freed memory went back to the system: it sees numba and NumPy too, and the holes that the C library
keeps between tensors. On a GPU both are the peak of the CUDA allocator. `--threads 1 --turns 1 --steps 2` is a quick
look.

The losses of three steps without dropout, from equal weights, stand below each table.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.memory.host_memory import give_back_before_gradients
from components.memory.measuring import measure_memory
from components.models.t5.architecture import architecture_config
from components.models.t5.checkpoint import T5Architecture, T5Model, create_t5
from components.optim.adafactor.optimizer import Adafactor
from components.process_settings import tune_process

BATCH, SOURCE, TARGET = 16, 64, 64
VOCABULARY, TRIMMED = 250_112, 8_192
LR, MAX_GRAD_NORM = 1e-3, 1.0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build_ours(vocab_size: int, dropout: float) -> T5Model:
    torch.manual_seed(0)
    architecture = T5Architecture(vocab_size, 512, 64, 1024, 8, 8, 6, dropout=dropout, model_type="mt5")
    return create_t5(architecture, head="seq2seq").train()


def build_examples(count: int) -> list[dict[str, list[int]]]:
    """Examples of pieces that the trimmed vocabulary has too, so that all models see the same batches."""
    generator = torch.Generator().manual_seed(1)
    sources = torch.randint(3, TRIMMED, (count, SOURCE), generator=generator).tolist()
    targets = torch.randint(3, TRIMMED, (count, TARGET), generator=generator).tolist()
    pairs = zip(sources, targets, strict=True)
    return [{"input_ids": source, "attention_mask": [1] * SOURCE, "labels": target} for source, target in pairs]


def collate(examples: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    return {key: torch.tensor([example[key] for example in examples], device=DEVICE) for key in examples[0]}


class Meter:
    """Seconds and peak bytes of each step, and its loss."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peaks: list[int] = []
        self.losses: list[float] = []

    def begin(self) -> None:
        gc.collect()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        self.at_rest = held_bytes()
        self.start = time.perf_counter()

    def end(self) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)
        self.peaks.append(peak_bytes() - self.at_rest)


def held_bytes() -> int:
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else resident_bytes("VmRSS")


def peak_bytes() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else resident_bytes("VmHWM")


def resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def train_ours(model: nn.Module, steps: int, meter: Meter) -> None:
    give_back_before_gradients(model)  # as training does
    optimizer = Adafactor(model.parameters(), lr=LR, scale_parameter=False, relative_step=False)
    examples = build_examples(BATCH * steps)
    for step in range(steps):
        meter.begin()
        loss = model(**collate(examples[step * BATCH : (step + 1) * BATCH])).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.end()
        meter.losses.append(loss.item())


def train_theirs(model: nn.Module, steps: int, meter: Meter) -> None:
    from torch.utils.data import SequentialSampler
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            meter.begin()

        def on_step_end(self, *_: object, **__: object) -> None:
            meter.end()

    class InOrder(Seq2SeqTrainer):
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(dataset)

        def training_step(self, *inputs: Any, **named: Any) -> Tensor:  # noqa: ANN401
            loss: Tensor = super().training_step(*inputs, **named)
            meter.losses.append(loss.item())
            return loss

    dataset: Any = build_examples(BATCH * steps)
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            optim="adafactor",
            max_grad_norm=MAX_GRAD_NORM,
            use_cpu=DEVICE == "cpu",
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        InOrder(model, arguments, data_collator=collate, train_dataset=dataset, callbacks=[Turns()]).train()


def build_theirs(vocab_size: int, dropout: float) -> nn.Module:
    """transformers' model with our weights, a head of its own among them: from a configuration it would tie them."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    ours = build_ours(vocab_size, dropout)
    model: nn.Module = MT5ForConditionalGeneration(MT5Config(**architecture_config(ours.architecture)))
    model.lm_head = nn.Linear(ours.architecture.d_model, vocab_size, bias=False)
    missing, unexpected = model.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    return model.train()


CONTENDERS: dict[str, tuple[Callable[[int, float], nn.Module], Callable[[nn.Module, int, Meter], None]]] = {
    "ours": (build_ours, train_ours),
    "theirs": (build_theirs, train_theirs),
}


def run_turn(arguments: argparse.Namespace) -> None:
    """One contender in this process; the last line of its output is what it measured."""
    tune_process(num_threads=arguments.threads)
    build, train = CONTENDERS[arguments.contender]
    model, meter = build(arguments.vocab_size, arguments.dropout).to(DEVICE), Meter()
    weights = sum(weight.nbytes for weight in model.parameters())
    allocated = 0
    if arguments.steps == 1:
        allocated = measure_memory(lambda: train(model, 1, meter)).peak
    else:
        train(model, arguments.steps, meter)
    figures = {"weights": weights, "allocated": allocated, "seconds": meter.seconds, "peaks": meter.peaks}
    print(json.dumps({**figures, "losses": meter.losses}))


def start_turn(contender: str, vocab_size: int, threads: int, steps: int, dropout: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--contender", contender, "--vocab-size", vocab_size]
    command += ["--threads", threads, "--steps", steps, "--dropout", dropout]
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    measured: dict[str, Any] = json.loads(output.splitlines()[-1])
    return measured


def compare(vocab_size: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The table of one vocabulary, and each contender's figures."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.turns):
        for name in CONTENDERS:
            turns[name].append(start_turn(name, vocab_size, arguments.threads, arguments.steps + 1, 0.1))
    figures = {}
    for name in CONTENDERS:
        seconds = [value for turn in turns[name] for value in turn["seconds"][1:]]
        figures[name] = {
            "least": min(seconds),
            "median": statistics.median(seconds),
            "allocated": start_turn(name, vocab_size, arguments.threads, 1, 0.1)["allocated"],
            "resident": max(value for turn in turns[name] for value in turn["peaks"][1:]),
        }
    weights = turns["ours"][0]["weights"]
    title = f"{vocab_size:,} pieces, weights of {weights / 1e6:,.0f} MB"
    print(f"\n{title:40s}   least s  median s   torch MB  process MB")
    for name, figure in figures.items():
        megabytes = [figure[key] / 1e6 for key in ("allocated", "resident")]
        print(f"{name:40s} {figure['least']:9.2f} {figure['median']:9.2f} {megabytes[0]:10,.0f} {megabytes[1]:11,.0f}")
    print_ratio("ours / theirs", figures["ours"], figures["theirs"])
    runs = {name: start_turn(name, vocab_size, arguments.threads, 3, 0.0)["losses"] for name in CONTENDERS}
    for name, losses in runs.items():
        print(f"losses without dropout, {name:15s}" + "".join(f"{loss:14.6f}" for loss in losses))
    pairs = zip(runs["ours"], runs["theirs"], strict=True)
    print(f"largest relative difference {max(abs(a - b) / b for a, b in pairs):.1e}")
    return {name: {**figure, "weights": weights} for name, figure in figures.items()}


def print_ratio(title: str, one: Mapping[str, float], other: Mapping[str, float]) -> None:
    least, median, allocated, resident = (one[key] / other[key] for key in ("least", "median", "allocated", "resident"))
    print(f"{title:40s} {least:9.2f} {median:9.2f} {allocated:10.2f} {resident:11.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="one mT5-small fine-tuning step against transformers'")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--vocab-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dropout", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_turn(arguments)
        return
    print(f"torch {torch.__version__} on {DEVICE}, {arguments.threads} threads, batch {BATCH} x {SOURCE} + {TARGET}")
    whole, trimmed = compare(VOCABULARY, arguments), compare(TRIMMED, arguments)
    print()
    print_ratio("ours trimmed / theirs untrimmed", trimmed["ours"], whole["theirs"])
    everything = [figures["weights"] + figures["allocated"] for figures in (trimmed["ours"], whole["theirs"])]
    print(f"weights and peak together: {everything[0] / 1e6:,.0f} MB against {everything[1] / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
