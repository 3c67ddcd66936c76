"""Memory that is free stays from step to step, and goes back to the system though a block in use lies above it."""

import subprocess
import sys

import psutil
import pytest
import torch

from components.memory.host_memory import give_back_memory

BLOCK = 100_000  # bytes; blocks of this size share the heap from the start


def test_free_blocks_below_one_in_use_go_back():
    process = psutil.Process()
    blocks = [torch.ones(BLOCK, dtype=torch.uint8) for _ in range(2000)]
    kept = blocks[-1]
    del blocks
    before = process.memory_info().rss
    assert give_back_memory()
    assert before - process.memory_info().rss > 1500 * BLOCK
    assert int(kept.sum()) == BLOCK


STEPS = """
import resource, sys
from components.memory.host_memory import keep_freed_memory

def step():
    blocks = [bytearray(8 << 20) for _ in range(8)]

if sys.argv[1] == "keep":
    print(int(keep_freed_memory()))
else:
    print(-1)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run_steps(mode: str, **environment: str) -> tuple[int, int]:
    """What keep_freed_memory returned, and the page faults of five steps that ask for 64 MB each."""
    command = [sys.executable, "-c", STEPS, mode]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": "", **environment})
    kept, faults = map(int, answer.stdout.split())
    return kept, faults


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_a_step_frees_the_next_one_finds_without_a_page_fault():
    kept, faults = run_steps("keep")
    assert kept == 1
    assert faults < 100
    assert run_steps("leave")[1] > 5 * 8 * 1000  # 2,048 pages a block, most of them anew in every step


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_thresholds_of_the_environment_are_left_alone(variable):
    value = "glibc.malloc.trim_threshold=131072" if variable == "GLIBC_TUNABLES" else "131072"
    kept, faults = run_steps("keep", **{variable: value})
    assert kept == 0
    assert faults > 5 * 8 * 1000
