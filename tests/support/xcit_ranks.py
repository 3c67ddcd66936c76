"""What each process does in the test of BatchNorm under activation checkpointing: five steps with a plan or without."""

from contextlib import nullcontext

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from components.memory.checkpointing import apply_plan
from components.memory.plans import parse_plan
from components.models.xcit.model import create_xcit

NUM_STEPS, NUM_MICRO_STEPS = 5, 2
PLANS = ("none", "recompute", "recompute/2", "rebuild")


def train(plan, rank, *, is_distributed):
    """The state, buffers and all, after steps of two accumulated micro-batches on this rank's images."""
    torch.manual_seed(2)
    model = create_xcit("xcit_nano_12_p4_16", num_classes=3, in_chans=1, embed_dim=16, depth=3, drop_path_rate=0.2)
    apply_plan(model.blocks, parse_plan(plan))
    wrapped = DistributedDataParallel(model) if is_distributed else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(10 + rank)
    for _ in range(NUM_STEPS):
        for micro_step in range(NUM_MICRO_STEPS):
            is_last = micro_step == NUM_MICRO_STEPS - 1
            images, labels = torch.randn(4, 1, 16, 16), torch.randint(3, (4,))
            with nullcontext() if is_last or not is_distributed else wrapped.no_sync():
                wrapped(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.clone() for name, value in model.state_dict().items()}


def run(rank, num_ranks, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num_ranks)
    torch.save({plan: train(plan, rank, is_distributed=True) for plan in PLANS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
