"""Does the planner keep its word? Budgets against measured peaks, and its plans against every other plan.

    .venv/bin/python benchmarks/memory_planner.py [--rows 4] [--length 128] [--layers 12]
        [--part both] [--json frontier.json]

First BERT-base (random weights, hidden dropout 0.1, attention dropout 0, AdamW): ten budgets between the least that any
plan needs and what no plan takes; for each the plan, its forecast and the peak of a real step, weights, gradients and
optimizer included. Then a model of four layers, with every plan of four treatments measured: of those within each
budget the fastest few are timed again in turns with the planner's. Times are those of one processor thread.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from components.memory.budget import MemoryPlanner, PlannedModel
from components.memory.measuring import without_collection
from components.memory.plans import Treatment
from components.memory.undoing import undone
from components.models.bert.checkpoint import BertArchitecture, BertEncoder
from components.process_settings import tune_process

MIB = 2**20
FOUR = (Treatment.KEEP, Treatment.REBUILD_ATTENTION, Treatment.REBUILD_WIDE, Treatment.REBUILD_SUMS)
NUM_BUDGETS = 10
NUM_CONTENDERS = 4


def build_planner(
    architecture: BertArchitecture, rows: int, length: int, offered: Sequence[Treatment] | None = None
) -> MemoryPlanner:
    torch.manual_seed(0)
    model = BertEncoder(architecture).train()
    return MemoryPlanner(
        planned=PlannedModel(model, model.layer_stacks),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True),
        forward_backward=lambda batch: model(**batch).hidden.square().mean().backward(),
        batch={"input_ids": torch.randint(1, architecture.vocab_size, (rows, length))},
        budget=2**60,
        offered=offered,
    )


def budgets_of(planner: MemoryPlanner) -> Iterator[int]:
    """Ten from the least to what no plan takes."""
    frontier = planner.frontier()
    least, most = frontier[0].peak, planner.forecast(f"keep*{planner.planned.num_layers}").peak
    return (least + (most - least) * index // (NUM_BUDGETS - 1) for index in range(NUM_BUDGETS))


def hold_forecasts(planner: MemoryPlanner) -> list[dict[str, object]]:
    start = time.process_time()
    planner.measure()
    print(f"measured what treatments cost in {time.process_time() - start:.0f} s of processor time")
    print(f"{'budget MiB':>10s} {'forecast':>9s} {'measured':>9s} {'off by':>7s} {'within':>6s}  plan")
    points = []
    for budget in budgets_of(planner):
        chosen = planner.fastest(budget)
        measured = planner.measured_peak(str(chosen.plan))
        print(
            f"{budget / MIB:10.1f} {chosen.peak / MIB:9.1f} {measured / MIB:9.1f} "
            f"{100 * (measured / chosen.peak - 1):+6.2f}% {'yes' if measured <= budget else 'NO':>6s}  {chosen.plan}"
        )
        points.append({"budget": budget, "forecast": chosen.peak, "measured": measured, "seconds": chosen.seconds})
    return points


def seconds_of(planner: MemoryPlanner, plan: str) -> float:
    planner.planned.apply(plan)
    planner.planned.model.zero_grad(set_to_none=True)
    start = time.process_time()
    planner.forward_backward(planner.batch)
    return time.process_time() - start


def search_exhaustively(planner: MemoryPlanner, rounds: int) -> None:
    planner.measure()
    plans = [" ".join(treatments) for treatments in itertools.product(FOUR, repeat=planner.planned.num_layers)]
    peaks = {plan: planner.measured_peak(plan) for plan in plans}
    first = {plan: min(seconds_of(planner, plan) for _ in range(2)) for plan in plans}
    print(f"\n{len(plans)} plans of four layers; ratios above 1: the planner's is slower than the best that was found")
    print(f"{'budget MiB':>10s} {'measured':>9s} {'ms':>7s} {'best ms':>8s} {'ratio':>6s}  plan; best plan")
    for budget in budgets_of(planner):
        chosen = str(planner.fastest(budget).plan)
        within = sorted((plan for plan in plans if peaks[plan] <= budget), key=lambda plan: first[plan])
        contenders = [chosen, *within[:NUM_CONTENDERS]]
        times: dict[str, list[float]] = {plan: [] for plan in contenders}
        for _ in range(rounds):
            for plan in times:
                times[plan].append(seconds_of(planner, plan))
        medians = {plan: statistics.median(values) for plan, values in times.items()}
        best = min(medians, key=lambda plan: medians[plan])
        print(
            f"{budget / MIB:10.2f} {planner.measured_peak(chosen) / MIB:9.2f} {medians[chosen] * 1e3:7.1f} "
            f"{medians[best] * 1e3:8.1f} {medians[chosen] / medians[best]:6.3f}  {chosen}; {best}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--part", choices=("forecasts", "search", "both"), default="both")
    parser.add_argument("--json", type=Path, help="where to write the first table's numbers")
    options = parser.parse_args()
    tune_process(num_threads=1)
    base = BertArchitecture(num_layers=options.layers, attention_dropout=0.0)
    small = BertArchitecture(
        vocab_size=2000, hidden_size=256, embedding_size=256, intermediate_size=1024, num_layers=4, num_heads=4,
        attention_dropout=0.0,
    )  # fmt: skip
    if options.part in ("forecasts", "both"):
        planner = build_planner(base, options.rows, options.length)
        print(f"BERT-base, {options.layers} layers, {options.rows} x {options.length} tokens, one thread")
        with undone(planner.planned.model, planner.optimizer), without_collection():
            points = hold_forecasts(planner)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(points, indent=1))
    if options.part in ("search", "both"):
        planner = build_planner(small, 4, 128, FOUR)
        with undone(planner.planned.model, planner.optimizer), without_collection():
            search_exhaustively(planner, options.rounds)


if __name__ == "__main__":
    main()
