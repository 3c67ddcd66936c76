"""Plans under DDP with two processes: gradients and random states are those without a plan, also in bfloat16."""

import subprocess
import sys
from pathlib import Path

import torch
from activation_ranks import PLANS
from project import SUPPORT

SCRIPT = SUPPORT / "activation_ranks.py"
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]


def test_two_processes_learn_the_same_under_every_plan(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "store")]
    ranks = [subprocess.Popen([*command, str(rank), "2", str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=600) for rank in ranks] == [0, 0]
    for dtype in ("fp32", "bf16"):
        plain = [torch.load(tmp_path / f"none-{dtype}-{rank}.pt") for rank in range(2)]
        assert not torch.equal(plain[0]["random state"], plain[1]["random state"])
        same = [torch.equal(plain[0][name], plain[1][name]) for name in plain[0] if name != "random state"]
        assert all(same)
        assert len(same) > 60
        for plan in PLANS[1:]:
            for rank in range(2):
                planned = torch.load(tmp_path / f"{plan}-{dtype}-{rank}.pt")
                assert [name for name, value in plain[rank].items() if not torch.equal(planned[name], value)] == []


def test_two_processes_within_a_budget_follow_one_plan_and_learn_what_they_would_without(tmp_path):
    """The second process, left to itself, would choose another plan."""
    subprocess.run([*TORCHRUN, str(SUPPORT / "planner_ranks.py"), str(tmp_path)], timeout=600, check=True)
    plain, planned = ([torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)] for name in ("plain", "budget"))
    assert planned[1]["own"] == ["keep*4"] != planned[0]["own"]
    assert planned[0]["followed"] == planned[1]["followed"] == planned[0]["own"]
    for rank in range(2):
        assert len(planned[rank]["gradients"]) == 3
        for expected, actual in zip(plain[rank]["gradients"], planned[rank]["gradients"], strict=True):
            assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []
        assert torch.equal(planned[rank]["random state"], plain[rank]["random state"])
    weights = [planned[rank]["weights"] for rank in range(2)] + [plain[0]["weights"]]
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in weights[0])
