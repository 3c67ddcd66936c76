"""The plan of batches: complete, deterministic, resumable, and sparing with padding."""

from itertools import pairwise

import numpy as np
import pytest

from components.data.batching import count_steps, plan_batches, plan_inference_batches, plan_token_batches, shard_batch

LENGTHS = np.random.default_rng(0).integers(1, 60, size=1003).tolist()


@pytest.mark.parametrize("bucket_batches", [0, 1, 7, 1000])
def test_every_row_appears_once_in_every_epoch(bucket_batches):
    for epoch in range(3):
        plan = plan_batches(LENGTHS, 16, seed=5, epoch=epoch, bucket_batches=bucket_batches)
        assert sorted(row for batch in plan for row in batch) == list(range(1003))
        assert sorted(map(len, plan))[0] == 1003 % 16
        assert max(map(len, plan)) == 16


def test_the_plan_is_a_function_of_seed_and_epoch():
    plan = plan_batches(LENGTHS, 16, seed=5, epoch=1)
    assert plan == plan_batches(LENGTHS, 16, seed=5, epoch=1)
    assert plan != plan_batches(LENGTHS, 16, seed=5, epoch=2)
    assert plan != plan_batches(LENGTHS, 16, seed=6, epoch=1)


def test_windows_sorted_by_length_save_padding():
    def waste(plan):
        return sum(len(b) * max(LENGTHS[row] for row in b) for b in plan) / sum(LENGTHS)

    shuffled = waste(plan_batches(LENGTHS, 16, seed=0, epoch=0, bucket_batches=0))
    sorted_in_windows = waste(plan_batches(LENGTHS, 16, seed=0, epoch=0, bucket_batches=50))
    assert shuffled > 1.7
    assert sorted_in_windows < 1.05


@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_tiny_data_neither_loops_for_ever_nor_loses_a_row(num_rows):
    plan = plan_batches([3] * num_rows, 16, seed=0, epoch=0)
    assert [sorted(batch) for batch in plan] == ([list(range(num_rows))] if num_rows else [])


def test_inference_starts_with_the_longest_and_keeps_ties_in_order():
    assert plan_inference_batches([3, 9, 3, 5], 2) == [[1, 3], [0, 2]]


def test_shards_partition_a_batch():
    batch = list(range(10, 17))
    shards = [shard_batch(batch, rank, 3) for rank in range(3)]
    assert shards == [[10, 13, 16], [11, 14], [12, 15]]


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "steps"),
    [(100, 10, 1, 1, 10), (101, 10, 1, 1, 11), (101, 10, 4, 1, 3), (101, 10, 4, 2, 6), (1, 10, 4, 1, 1)],
)
def test_leftover_micro_batches_make_a_step(rows, batch, accumulation, epochs, steps):
    assert count_steps(rows, batch, accumulation, epochs) == steps


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        plan_batches([1, 2], 0, seed=0, epoch=0)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_count_of_steps_holds_for_any_number_of_processes(num_processes, accumulation):
    """The ancestor divided rows by batch and accumulation alone while each of its processes took whole batches, so
    that its schedule ended early; here a process has its share of every batch, and there are as many steps as planned.
    """
    plan = plan_batches(LENGTHS, 16, seed=0, epoch=0)
    shards = [[shard_batch(batch, rank, num_processes) for batch in plan] for rank in range(num_processes)]
    steps = {-(-len(batches) // accumulation) for batches in shards}
    assert steps == {count_steps(len(LENGTHS), 16, accumulation, 1)}
    assert sorted(row for batches in shards for batch in batches for row in batch) == list(range(1003))


def test_windows_are_as_long_as_asked():
    """The ancestor's SortishSampler took a chunk_size and ignored it."""
    plain = plan_batches(LENGTHS, 16, seed=0, epoch=0, bucket_batches=0)
    short = plan_batches(LENGTHS, 16, seed=0, epoch=0, bucket_batches=1)
    assert [sorted(batch) for batch in short] == [sorted(batch) for batch in plain]
    assert all([LENGTHS[row] for row in batch] == sorted(LENGTHS[row] for row in batch) for batch in short)
    whole = plan_batches(LENGTHS, 16, seed=0, epoch=0, bucket_batches=len(plain))
    spans = sorted((min(LENGTHS[row] for row in batch), max(LENGTHS[row] for row in batch)) for batch in whole)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


@pytest.mark.parametrize("tokens", [64, 256, 1000])
@pytest.mark.parametrize("bucket_batches", [0, 3, 50])
def test_a_token_budget_bounds_every_batch_and_loses_no_row(tokens, bucket_batches):
    arguments = {"max_batch_size": 16, "seed": 5, "bucket_batches": bucket_batches}
    plan = plan_token_batches(LENGTHS, tokens, epoch=1, **arguments)
    assert sorted(row for batch in plan for row in batch) == list(range(1003))
    assert all(len(batch) * max(LENGTHS[row] for row in batch) <= tokens for batch in plan)
    assert max(map(len, plan)) == min(16, max(map(len, plan)))
    assert plan == plan_token_batches(LENGTHS, tokens, epoch=1, **arguments)
    assert plan != plan_token_batches(LENGTHS, tokens, epoch=2, **arguments)


@pytest.mark.parametrize("lengths", [[], [7], [7, 500, 7]])
def test_a_token_budget_on_tiny_data_and_on_rows_above_it_ends(lengths):
    plan = plan_token_batches(lengths, 20, max_batch_size=16, seed=0, epoch=0)
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    assert [set(batch) for batch in plan if len(batch) > 1] == ([{0, 2}] if len(lengths) == 3 else [])


def test_a_wide_budget_is_the_plan_by_examples():
    kinds = {"seed": 3, "epoch": 2, "bucket_batches": 4}
    by_tokens = plan_token_batches(LENGTHS, 10**9, max_batch_size=16, **kinds)
    assert sorted(map(sorted, by_tokens)) == sorted(map(sorted, plan_batches(LENGTHS, 16, **kinds)))
