"""BatchNorm's moments and counters after steps with activation checkpointing are those of steps without, to the bit."""

import pytest
import torch
import xcit_ranks

COUNTED = xcit_ranks.NUM_STEPS * xcit_ranks.NUM_MICRO_STEPS


def assert_untouched(states):
    expected = states["none"]
    counters = {int(value) for name, value in expected.items() if name.endswith("num_batches_tracked")}
    assert counters == {COUNTED}
    for plan, state in states.items():
        for name, value in state.items():
            assert torch.equal(value, expected[name]), (plan, name)


def test_with_accumulated_gradients():
    assert_untouched({plan: xcit_ranks.train(plan, 0, is_distributed=False) for plan in xcit_ranks.PLANS})


@pytest.mark.processes
def test_with_accumulated_gradients_on_two_ranks(tmp_path):
    torch.multiprocessing.spawn(xcit_ranks.run, (2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for states in (first, second):
        assert_untouched(states)
    assert torch.equal(first["none"]["head.weight"], second["none"]["head.weight"])
