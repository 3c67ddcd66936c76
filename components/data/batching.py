"""Which examples go into which batch: a plan that is a pure function of lengths, seed and epoch.

Because the plan can be computed again at any time, a run resumes in the middle of an epoch by skipping to a position,
and several processes agree on their batches without talking to each other.
"""

from collections.abc import Sequence

import numpy as np


def plan_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int, bucket_batches: int = 50
) -> list[list[int]]:
    """Shuffled batches of similar length: each index of `lengths` exactly once, the last batch possibly smaller.

    Examples are shuffled, cut into windows of `bucket_batches` batches and sorted by length within a window, so that
    little is lost to padding while the order stays random at large; 0 leaves the shuffled order alone.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(len(lengths))
    if bucket_batches:
        sizes = np.asarray(lengths)
        window = bucket_batches * batch_size
        windows = [order[start : start + window] for start in range(0, len(order), window)]
        # A stable sort keeps the shuffled order among examples of equal length.
        order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in windows] or [order])
    batches = [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def plan_inference_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches by falling length, so that the largest one comes first and running out of memory shows at once."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def shard_batch(batch: Sequence[int], process_index: int, num_processes: int) -> list[int]:
    """The part of a global batch that one process computes; parts differ by one example at the most.

    Striding keeps the lengths within each part as similar as in the whole.
    """
    return list(batch[process_index::num_processes])


def count_steps(num_rows: int, batch_size: int, gradient_accumulation_steps: int, num_epochs: float) -> int:
    """How many optimizer steps `num_epochs` take when leftover micro-batches of an epoch make a step of their own."""
    micro_steps = -(-num_rows // batch_size)
    per_epoch = -(-micro_steps // gradient_accumulation_steps)
    return max(1, round(per_epoch * num_epochs))
