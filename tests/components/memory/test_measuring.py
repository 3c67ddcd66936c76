"""What activation plans keep, to the byte, and that nothing is left behind."""

import math

import pytest
import torch
from activation_stacks import build_bert
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy

from components.memory import treatments as activation_treatments
from components.memory.bits import build_bits
from components.memory.checkpointing import apply_plan
from components.memory.measuring import Phase, measure_memory, measure_phases, peak_bytes, saved_bytes
from components.memory.plans import Treatment, parse_plan

ROWS, WIDTH = 256, 64
MAP = ROWS * WIDTH * 4  # bytes


@pytest.fixture(scope="module")
def bert():
    return build_bert()


def test_saved_bytes_are_those_of_a_layer_counted_by_hand():
    layer = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
    x = torch.randn(ROWS, WIDTH)
    layer(x)
    kept = {}
    for plan in ("none", "rebuild", "rebuild_wide", "recompute"):
        with apply_plan([layer], parse_plan(plan)):
            kept[plan] = saved_bytes(lambda: layer(x))
    # The argument and the value of the activation, and the result; recompute also keeps the generator's state
    assert (kept["none"], kept["rebuild"], kept["rebuild_wide"]) == (9 * MAP, 5 * MAP, MAP)
    assert MAP < kept["recompute"] <= MAP + 8192


def test_peak_bytes_are_those_of_a_chain_counted_by_hand():
    x = torch.randn(ROWS, WIDTH)

    def chain():
        y = x.neg()
        y = y.neg()  # two maps are alive while the second is made
        return y.neg().sum()

    assert peak_bytes(chain) - 2 * MAP in range(64)
    use = measure_memory(lambda: x.neg())
    assert (use.peak, use.left) == (MAP, MAP)


def test_a_step_on_the_cpu_is_measured_there_although_cuda_is_initialised(monkeypatch):
    """As torch's AdamW does on a machine with a GPU, for weights on the CPU too."""
    x, cpu = torch.randn(ROWS, WIDTH), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    use = measure_memory(lambda: x.neg(), cpu)
    assert (use.peak, use.left) == (MAP, MAP)
    assert peak_bytes(lambda: x.neg().neg().sum(), cpu) - 2 * MAP in range(64)

    def step(mark):
        mark("begin")
        return x.neg()

    assert measure_phases(step, cpu) == [Phase("begin", 0, MAP)]


def test_what_plans_keep_of_an_encoder(bert):
    model, (stack,), _ = bert
    ids = torch.arange(1, 97).repeat(16, 1)

    def kept(plan):
        with apply_plan(stack, parse_plan(plan)):
            forward = lambda: model(input_ids=ids).last_hidden_state  # noqa: E731
            return saved_bytes(forward)

    map_bytes = 16 * 96 * 64 * 4
    inputs = kept("recompute")
    # In maps of a layer's input, beyond that input. A norm's two statistics and the attention's normaliser are 3 / 32.
    # Query, key, value, context, two arguments of norms, two masks, one norm's result, twice 4 of the feed-forward
    small = 3 / 32
    per_layer = {"none": 17 + small, "offload": 17 + small}
    # Masks as bits (1 / 32 each); a norm's result is kept by the one who made it, and rebuilt; 1 / 4: the first input
    per_layer["rebuild"] = 9 + small + 1 / 16 + 1 / 4
    per_layer["rebuild_wide"] = per_layer["rebuild"] - 4
    per_layer["rebuild_linear"] = per_layer["rebuild"] - 7
    per_layer["rebuild_attention"] = per_layer["rebuild"] - 1
    per_layer["rebuild_wide_attention"] = per_layer["rebuild"] - 5
    # The sum before the second norm; then nothing but the first layer's input
    per_layer["rebuild_sums"] = per_layer["rebuild"] - 9
    per_layer["rebuild_all"] = per_layer["rebuild"] - 10
    # Results of six products, of which one is 4 wide, context and normaliser
    per_layer["save_matmuls"] = 9 + 1 + 1 / 32
    per_layer["save_attention"] = 1 + 1 / 32
    per_layer["segments/2"] = -1 / 2
    for plan, maps in per_layer.items():
        assert (kept(plan) - inputs) / 4 / map_bytes == pytest.approx(maps, abs=0.02), plan


@pytest.mark.parametrize("plan", ["segments", *Treatment])
def test_nothing_is_left_behind(plan, bert):
    model, (stack,), loss = bert
    with apply_plan(stack, parse_plan(plan)):
        loss(model).backward()
        # No garbage is collected while measuring: what is in a cycle would be left
        assert measure_memory(lambda: loss(model).backward()).left == 0
        assert measure_memory(lambda: loss(model) and None).left == 0  # as after an error before the backward pass


@pytest.mark.parametrize("shape", [(4096,), (3, 1001), (7, 5, 99)])
def test_masks_become_bits_and_return(shape):
    torch.manual_seed(0)
    mask = torch.rand(shape) < 0.9
    for tensor in (mask, mask / 0.9, mask.double() * 3, mask.bfloat16()):
        packed = build_bits(tensor)
        assert packed.bits.numel() == -(-mask.numel() // 8)
        restored = packed.unpack()
        assert restored.dtype == tensor.dtype
        assert torch.equal(restored, tensor)
    nearly = mask.float()
    for other in (0.5, 1e-30, -1.0, math.nan, 1.0 + 2**-23):
        nearly.view(-1)[-1] = other
        assert build_bits(nearly) is None
    assert build_bits(-mask.float()) is None


@pytest.mark.parametrize("plan", ["rebuild", "offload"])
@pytest.mark.parametrize("part", [0, 1])
def test_what_was_changed_in_place_is_refused_as_by_autograd(part, plan):
    layer = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    with apply_plan([layer], parse_plan(plan)):
        result = layer(torch.randn(ROWS, WIDTH, requires_grad=True))
        with torch.no_grad():
            layer[part].weight.mul_(2)
        with pytest.raises(RuntimeError, match="changed in place after the forward pass"):
            result.sum().backward()


def test_attention_that_draws_a_mask_is_not_saved():
    """Its result taken from the store would leave the generator where it was, and change every later mask."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention.default
    tensors = [torch.empty(1, 1, 2, 8)] * 3
    for policy in (activation_treatments._save_attention, activation_treatments._save_matmuls):
        assert policy(None, kernel, *tensors) is CheckpointPolicy.MUST_SAVE
        assert policy(None, kernel, *tensors, 0.1) is CheckpointPolicy.PREFER_RECOMPUTE
        assert policy(None, kernel, *tensors, dropout_p=0.1) is CheckpointPolicy.PREFER_RECOMPUTE
