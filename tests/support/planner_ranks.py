"""One process of several that train within a memory budget; writes the plans it chose and followed, and its gradients.

torchrun --standalone --nproc-per-node=2 planner_ranks.py FOLDER
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from loop_parts import Watcher, save

from components.data.text.dataset import EncodedTexts, TextCollator
from components.memory.budget import BudgetKeeper
from components.memory.measuring import without_collection
from components.memory.undoing import undone
from components.models.bert.checkpoint import BertArchitecture, create_bert
from components.training.loop import LoopSettings, TrainingLoop
from pipelines.learners.learner import FoldJob
from pipelines.learners.memory import keep_budget
from pipelines.runs.run import Run

NUM_STEPS = 3


def build_loop(folder: Path) -> TrainingLoop:
    """Four layers of real proportions, dropout on, padding enough to be skipped; two micro-steps a step."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    architecture = BertArchitecture(
        vocab_size=90, hidden_size=64, embedding_size=64, num_layers=4, num_heads=2, intermediate_size=256
    )
    model = create_bert(architecture, num_outputs=3)
    lengths = [64 - row % 30 for row in range(128)]
    texts = EncodedTexts([[1 + (row + t) % 89 for t in range(n)] for row, n in enumerate(lengths)], [0, 1, 2, 1] * 32)
    torch.manual_seed(100 + accelerator.process_index)
    return TrainingLoop(
        accelerator=accelerator,
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
        schedule=lambda step: 1.0,
        data=texts,
        collate=TextCollator(0),
        evaluate=None,
        save_model=save,
        settings=LoopSettings(num_steps=NUM_STEPS, batch_size=32, gradient_accumulation_steps=2),
        folder=folder / "fold0",
        observer=Watcher(),
    )


def measure(keeper: BudgetKeeper) -> None:
    planner = keeper.planner
    with undone(planner.planned.model, planner.optimizer), without_collection():
        planner.measure()


def train(folder: Path, *, has_budget: bool) -> dict[str, object]:
    loop = build_loop(folder)
    rank, decisions, gradients = loop.accelerator.process_index, [], []
    if has_budget:
        job = FoldJob("fold0", folder / "fold0", train=None, valid=None, seed=0, observer=None)
        loop.memory = keeper = keep_budget(loop, "1TiB", Run(folder), job)
        keeper.on_decision = decisions.append
        if rank == 0:  # the others, by themselves, would keep everything
            measure(keeper)
            keeper.planner.budget = keeper.planner.forecast("recompute*4").peak + 300_000
    loop.plain_optimizer.register_step_pre_hook(
        lambda *_: gradients.append({name: w.grad.clone() for name, w in loop.plain_model.named_parameters()})
    )
    loop.run()
    followed = [str(applied.plan) for applied in loop.memory.planner.planned.applied] if has_budget else []
    return {
        "own": [decision.plan for decision in decisions],
        "followed": followed,
        "gradients": gradients[-NUM_STEPS:],  # the planner took steps of its own before
        "weights": loop.plain_model.state_dict(),
        "random state": torch.get_rng_state(),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = PartialState(cpu=True).process_index
    for has_budget in (False, True):
        name = "budget" if has_budget else "plain"
        torch.save(train(folder / name, has_budget=has_budget), folder / f"{name}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
