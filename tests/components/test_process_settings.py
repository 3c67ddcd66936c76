"""What a process runs under once it is set up: threads, subnormal numbers as zero, and freed memory kept."""

import subprocess
import sys

import pytest
import torch

# torch starts its worker threads with the product; two of them share it.
SCRIPT = """
import torch
from components.memory import host_memory

kept = []
host_memory.keep_freed_memory = lambda: kept.append(True)
from components.process_settings import tune_process

tune_process(num_threads=2)
before = torch.get_num_threads()
tune_process()
print(before, torch.get_num_threads(), len(kept))
print((torch.full((2, 1 << 20), 1e-30) * 1e-12).count_nonzero().item())
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush subnormal numbers")
def test_subnormal_numbers_are_zero_on_every_thread():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["2 2 2", "0"], done.stderr
