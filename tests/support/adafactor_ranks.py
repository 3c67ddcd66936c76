"""What each of two processes does in the test of sharded Adafactor: the same steps with and without sharding."""

import torch
from adafactor_reference import random_gradients
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from components.optim.adafactor.optimizer import Adafactor

# Five rows on two ranks are uneven, one row leaves a rank without any; vectors and stacks of matrices are cut too.
SHAPES = ((5, 11), (1, 6), (7,), (1,), (3, 2, 4), (4, 3, 3, 3))
NUM_STEPS = 30


class Weights(nn.Module):
    """A module that owns one parameter of each shape."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        values = [(torch.randn(shape, generator=generator) * 0.3).to(dtype) for shape in SHAPES]
        self.weights = nn.ParameterList(values)

    def forward(self):
        return sum(weight.sum() for weight in self.weights)


def compare(rank, num_ranks, store, dtype, options):
    """Return the largest relative distance between a sharded and a whole model, the states' shapes, and local sizes."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    mesh = init_device_mesh("cpu", (num_ranks,))
    whole, sharded = Weights(dtype), Weights(dtype)
    fully_shard(sharded, mesh=mesh)
    optimizers = Adafactor(whole.parameters(), **options, path="plain"), Adafactor(sharded.parameters(), **options)
    for gradients in random_gradients(SHAPES, NUM_STEPS):
        for param, twin, gradient in zip(whole.parameters(), sharded.parameters(), gradients, strict=True):
            param.grad = torch.tensor(gradient).to(dtype)
            twin.grad = distribute_tensor(param.grad, twin.device_mesh, twin.placements)
        for optimizer in optimizers:
            optimizer.step()
    rates = zip(*(optimizer.effective_lrs() for optimizer in optimizers), strict=True)
    pairs = list(zip(whole.parameters(), sharded.parameters(), strict=True))
    errors = [((one - other.full_tensor()).norm() / one.norm()).item() for one, other in pairs]
    errors += [abs(left.value - right.value) / left.value for left, right in rates]
    for one, other in pairs:
        for key, value in optimizers[1].state[other].items():
            if key != "step":
                expected = optimizers[0].state[one][key]
                assert isinstance(value, DTensor)
                errors.append(((value.full_tensor() - expected).norm() / expected.norm()).item())
    gathered = get_optimizer_state_dict(sharded, optimizers[1])["state"]
    dist.destroy_process_group()
    return max(errors), len(gathered)


def run(rank, num_ranks, folder, dtype, options):
    torch.set_num_threads(1)
    result = compare(rank, num_ranks, f"{folder}/store", dtype, options)
    torch.save(result, f"{folder}/{rank}.pt")
