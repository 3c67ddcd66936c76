"""Memory that is free goes back to the system, though a block that is in use lies above it."""

import psutil
import torch

from components.training.host_memory import give_back_memory

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
