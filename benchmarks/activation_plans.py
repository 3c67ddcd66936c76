"""Memory and time of one training step under each activation-checkpointing plan, beside transformers' own.

    .venv/bin/python benchmarks/activation_plans.py [--quick] [--model bert|t5|xcit] [--tokens 512] [--lengths 128 512]
        [--rounds 7] [--plans "rebuild*12" ...] [--json plans.json]

BERT-base with random weights, SDPA, hidden dropout 0.1, attention dropout 0, so that the fast attention kernel is part
of the baseline and not counted as a plan: 100 % is our encoder without one. All plans take turns within each round, so
that a busy machine slows all; times are medians over the rounds of the time of one processor thread (on CUDA, of the
clock), which a busy machine changes less. "saved" is what a forward pass leaves behind, its result included; "hooks"
what saved-tensor hooks see, which count no checkpoint's input; "peak" the most that forward and backward hold beyond
weights and their gradients. On CPU they are exact to the byte, on CUDA rounded to 512 bytes. The gradient of BERT's
word embeddings, 89 MiB until it is added to what is there, is a floor under every peak. The rows every_n are
transformers' BertModel with its `every_n_layers`.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from components.memory.checkpointing import apply_to_model
from components.memory.measuring import peak_bytes, saved_bytes
from components.memory.plans import parse_plan
from components.models.bert.checkpoint import BertArchitecture, BertEncoder
from components.models.t5.checkpoint import T5Architecture, create_t5
from components.process_settings import tune_process

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLANS = (
    "none",
    "rebuild",
    "rebuild_attention",
    "rebuild_wide*1 rebuild_attention*11",
    "rebuild_wide*2 rebuild*10",
    "rebuild_wide*10 rebuild_attention*2",
    "rebuild_wide",
    "save_matmuls",
    "save_attention",
    "rebuild_sums",
    "embeddings+rebuild_sums",
    "embeddings+rebuild_sums rebuild_all rebuild_sums*2 rebuild_all rebuild_sums*2 rebuild_all rebuild_sums*2 "
    "rebuild_all rebuild_sums",
    "recompute",
)
QUICK = (
    "none",
    "rebuild",
    "rebuild_attention",
    "rebuild_wide",
    "rebuild_sums",
    "save_matmuls",
    "recompute",
    "segments",
)
ON_CUDA = ("offload", "recompute_offload")
MIB = 2**20


@dataclass
class Row:
    """One plan: how it is put to work, and what was measured."""

    name: str
    enter: Callable[[], ExitStack]
    forward: Callable[[], Tensor]
    saved: int = 0
    hooks: int = 0
    peak: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A model with `layer_stacks`, and a forward pass to a scalar."""

    title: str
    model: nn.Module
    forward: Callable[[], Tensor]

    def rows(self, plans: tuple[str, ...]) -> list[Row]:
        fitting = [plan for plan in plans if self.fits(plan)]
        return [Row(plan, lambda plan=plan: self.applied(plan), self.forward) for plan in fitting]

    def fits(self, plan: str) -> bool:
        try:
            self.applied(plan).close()
        except ValueError:
            return False
        return True

    def applied(self, plan: str) -> ExitStack:
        handles = ExitStack()
        for applied in apply_to_model(self.model, parse_plan(plan)):
            handles.enter_context(applied)
        return handles


def build_bert(batch: int, length: int, num_layers: int) -> Subject:
    torch.manual_seed(0)
    model = BertEncoder(BertArchitecture(num_layers=num_layers, attention_dropout=0.0)).to(DEVICE).train()
    input_ids = torch.randint(1, 30522, (batch, length), device=DEVICE)
    title = f"BERT-base, {num_layers} layers, {batch} x {length} tokens, {DEVICE}"
    return Subject(title, model, lambda: model(input_ids).hidden.square().mean())


def build_their_bert(batch: int, length: int, num_layers: int) -> Subject:
    torch.manual_seed(0)
    config = BertConfig(
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa", num_hidden_layers=num_layers, use_cache=False
    )
    model = BertModel(config, add_pooling_layer=False).to(DEVICE).train()
    input_ids = torch.randint(1, config.vocab_size, (batch, length), device=DEVICE)
    return Subject("transformers", model, lambda: model(input_ids).last_hidden_state.square().mean())


def build_t5(tokens: int, length: int = 64) -> Subject:
    """The shapes of t5-v1.1-small with 8,000 pieces."""
    torch.manual_seed(0)
    batch = max(1, tokens // length)
    model = create_t5(T5Architecture(8000, 512, 64, 1024, 8, 8, 6, dropout=0.1), head="seq2seq").to(DEVICE).train()
    ids = torch.randint(3, 8000, (batch, length), device=DEVICE)
    mask = torch.ones_like(ids)
    title = f"T5-v1.1-small, {batch} x {length} tokens to {length}, {DEVICE}"
    return Subject(title, model, lambda: model(input_ids=ids, attention_mask=mask, labels=ids).loss)


def build_xcit(tokens: int) -> Subject:
    import timm

    batch = max(1, tokens // 256)
    torch.manual_seed(0)
    model = timm.create_model("xcit_small_12_p16_224", drop_path_rate=0.05).to(DEVICE).train()
    model.layer_stacks = [model.blocks]
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    return Subject(f"XCiT-S12/16, {batch} x 224 px, {DEVICE}", model, lambda: model(images).square().mean())


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


def transformers_rows(subject: Subject) -> list[Row]:
    model = subject.model
    assert isinstance(model, BertModel)
    counts = (1, 2, 3, 4) if hasattr(model, "activation_checkpointing_enable") else (1,)

    def entering(every: int) -> Callable[[], ExitStack]:
        def enter() -> ExitStack:
            handles = ExitStack()
            handles.enter_context(transformers_plan(model, every))
            return handles

        return enter

    rows = [Row(f"transformers every_n={count}", entering(count), subject.forward) for count in counts]
    return [Row("transformers none", ExitStack, subject.forward), *rows]


def measure(rows: list[Row], rounds: int) -> None:
    for row in rows:
        with row.enter():
            row.forward().backward()
            row.saved, row.hooks = saved_bytes(row.forward), hooked_bytes(row.forward)
            row.peak = peak_bytes(lambda row=row: row.forward().backward())
    for _ in range(rounds):
        for row in rows:
            with row.enter():
                gc.collect()
                row.seconds.append(time_of(lambda row=row: row.forward().backward()))


def time_of(step: Callable[[], object]) -> float:
    synchronise()
    clock = time.perf_counter if DEVICE == "cuda" else time.process_time
    start = clock()
    step()
    synchronise()
    return clock() - start


def hooked_bytes(forward: Callable[[], Tensor]) -> int:
    """What saved-tensor hooks see, each storage once, parameters excluded."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storages.values())


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def print_table(title: str, rows: list[Row]) -> None:
    first = rows[0]
    base = statistics.median(first.seconds)
    print(f"\n{title}: without a plan {base * 1e3:.0f} ms; shares in % of it, times as medians and minima")
    print(f"{'plan':84s} {'saved MiB':>9s} {'%':>6s} {'hooks':>7s} {'peak MiB':>9s} {'time %':>7s} {'min %':>6s}")
    for row in sorted(rows, key=lambda row: -row.saved):
        least = min(row.seconds) / min(first.seconds)
        print(
            f"{row.name:84s} {row.saved / MIB:9.1f} {100 * row.saved / first.saved:6.1f} {row.hooks / MIB:7.1f} "
            f"{row.peak / MIB:9.1f} {100 * statistics.median(row.seconds) / base:7.1f} {100 * least:6.1f}"
        )


def build_tables(options: argparse.Namespace, plans: tuple[str, ...]) -> Iterator[tuple[str, list[Row]]]:
    if options.model in ("bert", "all"):
        for length in options.lengths:
            sizes = max(1, options.tokens // length), length, 4 if options.quick else 12
            ours = build_bert(*sizes)
            yield ours.title, ours.rows(plans) + transformers_rows(build_their_bert(*sizes))
    others = [build_t5] * (options.model in ("t5", "all")) + [build_xcit] * (options.model in ("xcit", "all"))
    for build in others:
        subject = build(options.tokens)
        yield subject.title, subject.rows(plans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 layers, fewer plans, 3 rounds")
    parser.add_argument("--model", choices=("bert", "t5", "xcit", "all"), default="all")
    parser.add_argument("--tokens", type=int, default=16384 if DEVICE == "cuda" else 512, help="of a batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--json", type=Path, help="where to write the tables for docs/draw_memory_frontier.py")
    parser.add_argument("--plans", nargs="+", help="these in place of the list, beside none")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 7)
    if DEVICE == "cpu":
        tune_process(num_threads=1)
    plans = (QUICK if options.quick else PLANS) + (ON_CUDA if DEVICE == "cuda" else ())
    if options.plans:
        plans = ("none", *options.plans)
    tables = {}
    for title, rows in build_tables(options, plans):
        measure(rows, rounds)
        print_table(title, rows)
        tables[title] = [
            {"plan": row.name, "saved": row.saved, "peak": row.peak, "seconds": statistics.median(row.seconds)}
            for row in rows
        ]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
