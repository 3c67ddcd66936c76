"""Plans under DDP with two processes: gradients and random states are those without a plan, also in bfloat16."""

import subprocess
import sys
from pathlib import Path

import torch
from activation_ranks import PLANS

SCRIPT = Path(__file__).parents[1] / "activation_ranks.py"


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
