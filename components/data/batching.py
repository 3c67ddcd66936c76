"""Which examples go into which batch: a plan that is a pure function of lengths, seed and epoch.

Because the plan can be computed again at any time, a run resumes in the middle of an epoch by skipping to a position,
and several processes agree on their batches without talking to each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int, bucket_batches: int = 50
) -> list[list[int]]:
    """Shuffled batches of similar length: each index of `lengths` exactly once, the last batch possibly smaller.

    Examples are shuffled, cut into windows of `bucket_batches` batches and sorted by length within a window, so that
    little is lost to padding while the order stays random at large; 0 leaves the shuffled order alone.
    """
    generator, windows = _shuffled_windows(lengths, batch_size, seed, epoch, bucket_batches)
    order = np.concatenate(windows)
    batches = [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def plan_token_batches(
    widths: Sequence[int],
    tokens_per_batch: int,
    *,
    max_batch_size: int,
    seed: int,
    epoch: int,
    bucket_batches: int = 50,
) -> list[list[int]]:
    """As `plan_batches`, but a batch ends before its rows times its greatest width exceed `tokens_per_batch`.

    `widths` are those that rows are padded to (`text.padded_width`). A row wider than the budget is a batch of its own.
    """
    if tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch is {tokens_per_batch}; it must be at least 1")
    generator, windows = _shuffled_windows(widths, max_batch_size, seed, epoch, bucket_batches)
    batches = [batch for window in windows for batch in _cut(window.tolist(), widths, tokens_per_batch, max_batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def _shuffled_windows(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, bucket_batches: int
) -> tuple[np.random.Generator, list[NDArray[np.int64]]]:
    """All rows at random, in windows that are sorted by length, and the generator as that left it."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = generator.permutation(len(lengths))
    if not bucket_batches:
        return generator, [order]
    sizes, window = np.asarray(lengths), bucket_batches * batch_size
    parts = [order[start : start + window] for start in range(0, len(order), window)] or [order]
    # A stable sort keeps the shuffled order among examples of equal length.
    return generator, [part[np.argsort(sizes[part], kind="stable")] for part in parts]


def _cut(rows: list[int], widths: Sequence[int], tokens: int, most: int) -> Iterator[list[int]]:
    batch: list[int] = []
    widest = 0
    for row in rows:
        widest = max(widest, widths[row])
        if batch and ((len(batch) + 1) * widest > tokens or len(batch) == most):
            yield batch
            batch, widest = [], widths[row]
        batch.append(row)
    if batch:
        yield batch


def plan_inference_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches by falling length, so that the largest one comes first and running out of memory shows at once."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def shard_batch(batch: Sequence[int], process_index: int, num_processes: int) -> list[int]:
    """The part of a global batch that one process computes; parts differ by one example at the most.

    Striding keeps the lengths within each part as similar as in the whole.
    """
    return list(batch[process_index::num_processes])


def count_plan_steps(plan: Sequence[Sequence[int]], gradient_accumulation_steps: int) -> int:
    """How many optimizer steps an epoch's plan takes."""
    return -(-len(plan) // gradient_accumulation_steps)


def count_steps(num_rows: int, batch_size: int, gradient_accumulation_steps: int, num_epochs: float) -> int:
    """How many optimizer steps `num_epochs` take when leftover micro-batches of an epoch make a step of their own."""
    micro_steps = -(-num_rows // batch_size)
    per_epoch = -(-micro_steps // gradient_accumulation_steps)
    return max(1, round(per_epoch * num_epochs))
