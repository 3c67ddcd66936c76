"""Adafactor on parameters that FSDP2 has cut over processes, against the same steps in one process."""

import adafactor_ranks
import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from components.optim.adafactor.optimizer import Adafactor

OPTIONS = {"lr": 3e-3, "relative_step": False, "beta1": 0.9, "weight_decay": 0.1}


def test_one_rank_equals_the_plain_path(tmp_path):
    error, num_states = adafactor_ranks.compare(0, 1, tmp_path / "store", torch.float32, OPTIONS)
    assert error <= 1e-6
    assert num_states == len(adafactor_ranks.SHAPES)


@pytest.mark.processes
@pytest.mark.parametrize(
    "options",
    [OPTIONS, {"factor_convolutions": True}, {**OPTIONS, "scale_parameter": False, "min_dim_size_to_factor": 5}],
    ids=["momentum-decay", "convolutions", "whole-moments"],
)
def test_two_ranks_equal_one_process(options, tmp_path):
    torch.multiprocessing.spawn(adafactor_ranks.run, (2, str(tmp_path), torch.float64, options), nprocs=2)
    for rank in range(2):
        error, num_states = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert error <= 1e-12
        assert num_states == len(adafactor_ranks.SHAPES)


def test_a_cut_along_another_dimension_is_refused_with_the_cure(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        param = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
        param.grad = distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)])
        with pytest.raises(ValueError, match=r"shape \(4, 4\) placed as .* cut once along dimension 0"):
            Adafactor([param]).step()
    finally:
        torch.distributed.destroy_process_group()
