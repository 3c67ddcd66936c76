"""One process of several that train the same step under DDP with a plan; writes what its weights learnt to a file.

python activation_ranks.py STORE RANK NUM_RANKS FOLDER
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from activation_stacks import build_bert
from torch.nn.parallel import DistributedDataParallel

from components.memory.checkpointing import apply_plan
from components.memory.plans import parse_plan

PLANS = ("none", "recompute", "segments", "save_matmuls", "rebuild_sums", "rebuild_all recompute rebuild_sums keep")


def train_step(plan: str, rank: int, *, is_narrow: bool) -> dict[str, torch.Tensor]:
    """Two micro-steps, of which the second reduces; each rank draws its own dropout."""
    model, (stack,), loss = build_bert()
    with ExitStack() as handles:
        if plan != "none":
            handles.enter_context(apply_plan(stack, parse_plan(plan)))
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        torch.manual_seed(100 + rank)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_narrow):
            with wrapped.no_sync():
                loss(wrapped).backward()
            loss(wrapped).backward()
    state = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return state | {"random state": torch.get_rng_state()}


def main(store: str, rank: int, num_ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    for is_narrow in (False, True):
        for plan in PLANS:
            name = f"{plan.replace('/', '-')}-{'bf16' if is_narrow else 'fp32'}-{rank}.pt"
            torch.save(train_step(plan, rank, is_narrow=is_narrow), folder / name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
