"""Memory and time of one training step under each activation-checkpointing plan, beside transformers' own.

    .venv/bin/python benchmarks/activation_plans.py [--quick] [--model bert|t5|xcit] [--tokens 512] [--lengths 128 512]

BERT-base with random weights, SDPA, hidden dropout 0.1, attention dropout 0, so that the fast attention kernel is part
of the baseline and not counted as a plan: 100 % is this model without one. All plans take turns within each round, so
that a busy machine slows all; times are medians over the rounds. "saved" is what a forward pass leaves behind, its
result included; "peak" the most that forward and backward hold beyond weights and their gradients. On CPU both are
exact to the byte, on CUDA rounded to 512 bytes. The gradient of BERT's word embeddings, 89 MiB until it is added to
what is there, is a floor under every peak. The rows every_n are transformers' `every_n_layers`.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from components.models.t5 import T5Architecture, create_t5
from components.training.activation_checkpointing import apply_plan
from components.training.activation_memory import peak_bytes, saved_bytes
from components.training.activation_plans import parse_plan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLANS = (
    "none",
    "rebuild",
    "rebuild/2",
    "recompute rebuild*11",
    "recompute*2 rebuild*10",
    "save_matmuls",
    "rebuild_wide",
    "rebuild_wide*8 rebuild_linear*4",
    "rebuild_linear",
    "save_attention",
    "recompute",
    "recompute*11 keep",
    "recompute/2",
    "segments",
    "segments/2",
)
QUICK = ("none", "rebuild", "rebuild_wide", "rebuild_linear", "save_matmuls", "recompute", "recompute/2", "segments")
ON_CUDA = ("offload", "recompute_offload")
MIB = 2**20


@dataclass
class Row:
    """One plan: how it is put to work, and what was measured."""

    name: str
    enter: Callable[[], ExitStack]
    saved: int = 0
    peak: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A model, its stacks of layers and a forward pass to a scalar."""

    title: str
    model: nn.Module
    stacks: list[nn.ModuleList]
    forward: Callable[[], Tensor]

    def rows(self, plans: tuple[str, ...]) -> list[Row]:
        fitting = [plan for plan in plans if self.fits(plan)]
        return [Row(plan, lambda plan=plan: self.applied(plan)) for plan in fitting]

    def fits(self, plan: str) -> bool:
        try:
            _ = [parse_plan(plan).pieces(len(stack)) for stack in self.stacks]
        except ValueError:
            return False
        return True

    def applied(self, plan: str) -> ExitStack:
        handles = ExitStack()
        for stack in self.stacks:
            handles.enter_context(apply_plan(stack, parse_plan(plan)))
        return handles


def build_bert(batch: int, length: int, num_layers: int) -> Subject:
    torch.manual_seed(0)
    config = BertConfig(
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa", num_hidden_layers=num_layers, use_cache=False
    )
    model = BertModel(config, add_pooling_layer=False).to(DEVICE).train()
    input_ids = torch.randint(1, config.vocab_size, (batch, length), device=DEVICE)
    title = f"BERT-base, {num_layers} layers, {batch} x {length} tokens, {DEVICE}"
    return Subject(title, model, [model.encoder.layer], lambda: model(input_ids).last_hidden_state.square().mean())


def build_t5(batch: int, length: int) -> Subject:
    """The shapes of t5-v1.1-small with 8,000 pieces."""
    torch.manual_seed(0)
    model = create_t5(T5Architecture(8000, 512, 64, 1024, 8, 8, 6, dropout=0.1), head="seq2seq").to(DEVICE).train()
    assert isinstance(model.encoder.block, nn.ModuleList)
    assert isinstance(model.decoder.block, nn.ModuleList)
    ids = torch.randint(3, 8000, (batch, length), device=DEVICE)
    mask = torch.ones_like(ids)
    title = f"T5-v1.1-small, {batch} x {length} tokens to {length}, {DEVICE}"
    stacks = [model.encoder.block, model.decoder.block]
    return Subject(title, model, stacks, lambda: model(input_ids=ids, attention_mask=mask, labels=ids).loss)


def build_xcit(batch: int) -> Subject:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("xcit_small_12_p16_224", drop_path_rate=0.05).to(DEVICE).train()
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    return Subject(
        f"XCiT-S12/16, {batch} x 224 px, {DEVICE}", model, [model.blocks], lambda: model(images).square().mean()
    )


@contextmanager
def transformers_plan(model: BertModel, every: int) -> Iterator[None]:
    """Checkpoint every n-th layer as transformers does; versions before `every_n_layers` know n = 1 alone."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(every_n_layers=every)
        disable = model.activation_checkpointing_disable
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        disable = model.gradient_checkpointing_disable
    try:
        yield
    finally:
        disable()


def transformers_rows(model: nn.Module) -> list[Row]:
    if not isinstance(model, BertModel):
        return []
    counts = (1, 2, 3, 4) if hasattr(model, "activation_checkpointing_enable") else (1,)

    def entering(every: int) -> Callable[[], ExitStack]:
        def enter() -> ExitStack:
            handles = ExitStack()
            handles.enter_context(transformers_plan(model, every))
            return handles

        return enter

    return [Row(f"transformers every_n={count}", entering(count)) for count in counts]


def measure(subject: Subject, rows: list[Row], rounds: int) -> None:
    def step() -> None:
        subject.forward().backward()

    for row in rows:
        with row.enter():
            step()
            row.saved, row.peak = saved_bytes(subject.forward), peak_bytes(step)
    for _ in range(rounds):
        for row in rows:
            with row.enter():
                gc.collect()
                synchronise()
                start = time.perf_counter()
                step()
                synchronise()
                row.seconds.append(time.perf_counter() - start)


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def print_table(title: str, rows: list[Row]) -> None:
    first = rows[0]
    base = statistics.median(first.seconds)
    print(f"\n{title}: without a plan {base * 1e3:.0f} ms; shares in % of it, times as medians and minima")
    print(
        f"{'plan':34s} {'saved MiB':>10s} {'saved %':>8s} {'peak MiB':>9s} {'peak %':>7s} {'time %':>7s} {'min %':>6s}"
    )
    for row in sorted(rows, key=lambda row: -row.saved):
        least = min(row.seconds) / min(first.seconds)
        print(
            f"{row.name:34s} {row.saved / MIB:10.1f} {100 * row.saved / first.saved:8.1f} {row.peak / MIB:9.1f} "
            f"{100 * row.peak / first.peak:7.1f} {100 * statistics.median(row.seconds) / base:7.1f} {100 * least:6.1f}"
        )


def build_subjects(options: argparse.Namespace) -> Iterator[Subject]:
    if options.model in ("bert", "all"):
        for length in options.lengths:
            yield build_bert(max(1, options.tokens // length), length, 4 if options.quick else 12)
    if options.model in ("t5", "all"):
        yield build_t5(max(1, options.tokens // 64), 64)
    if options.model in ("xcit", "all"):
        yield build_xcit(max(1, options.tokens // 256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 layers, fewer plans, 3 rounds")
    parser.add_argument("--model", choices=("bert", "t5", "xcit", "all"), default="all")
    parser.add_argument("--tokens", type=int, default=16384 if DEVICE == "cuda" else 512, help="of a batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 7)
    for subject in build_subjects(options):
        plans = (QUICK if options.quick else PLANS) + (ON_CUDA if DEVICE == "cuda" else ())
        rows = subject.rows(plans) + transformers_rows(subject.model)
        measure(subject, rows, rounds)
        print_table(subject.title, rows)


if __name__ == "__main__":
    main()
