"""T5's own operations: dropout, hand-written gradients, position buckets, half precision."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5Attention as ReferenceAttention

from components.models.shared import dropout
from components.models.t5 import ops as t5_ops
from components.models.t5.checkpoint import T5Architecture, create_t5
from components.models.t5.layers import relative_position_bucket
from components.optim.adafactor.optimizer import Adafactor

ARCHITECTURE = T5Architecture(
    vocab_size=40, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=3
)


def build_batch():
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(3, 40, (4, 17), generator=generator)
    labels = torch.randint(3, 40, (4, 9), generator=generator)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}


def test_dropout_mask_has_the_asked_share_and_keeps_the_mean():
    torch.manual_seed(3)
    mask = dropout.dropout_mask(torch.empty(999, 1001), 0.1)
    share = 6554 / 65536
    assert torch.equal(mask.unique(), torch.tensor([0.0, 1 / (1 - share)]))
    assert abs((mask == 0).float().mean() - share) < 4 * (share * (1 - share) / mask.numel()) ** 0.5
    torch.manual_seed(3)
    assert torch.equal(mask, dropout.dropout_mask(torch.empty(999, 1001), 0.1))


def test_dropped_neighbours_are_independent():
    torch.manual_seed(4)
    dropped = (dropout.dropout_mask(torch.empty(400_000), 0.5) == 0).double() - 0.5
    for lag in range(1, 9):
        assert abs((dropped[lag:] * dropped[:-lag]).mean() / 0.25) < 4 / 400_000**0.5


def test_dropout_stands_where_t5_has_it(monkeypatch):
    counts = []
    draw = dropout.dropout_mask
    for module in (dropout, t5_ops):
        monkeypatch.setattr(module, "dropout_mask", lambda like, p: (counts.append(like.numel()), draw(like, p))[1])
    model = create_t5(ARCHITECTURE, head="seq2seq")
    batch = build_batch()
    model.train()(**batch)
    source, target, d_model, d_ff, heads = 4 * 17, 4 * 9, 24, 32, 3
    encoder = [heads * source * 17, source * d_model, source * d_ff, source * d_model]
    decoder = [heads * target * 9, target * d_model, heads * target * 17, target * d_model]
    decoder += [target * d_ff, target * d_model]
    ends = [source * d_model, target * d_model] * 2  # embeddings and last norms
    assert sorted(counts) == sorted(encoder * 2 + decoder * 3 + ends)
    counts.clear()
    model.eval()(**batch)
    assert counts == []


def test_hand_written_gradients():
    torch.manual_seed(0)
    gate, value, x = (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(3))
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    mask = dropout.dropout_mask(gate.detach(), 0.4)
    assert gradcheck(t5_ops._GatedGelu.apply, (gate, value, mask))
    assert gradcheck(lambda g, v: t5_ops.gated_gelu(g, v, 0.0), (gate, value))
    assert gradcheck(lambda h, w: t5_ops.rms_norm(h, w, 1e-6), (x, weight))
    expected = functional.gelu(gate, approximate="tanh") * value
    torch.testing.assert_close(t5_ops.gated_gelu(gate, value, 0.0), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias_shape", [(1, 2, 3, 4), (2, 2, 3, 4), (2, 1, 1, 4), None])
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradients_of_attention(bias_shape, p):
    torch.manual_seed(0)
    shapes = [(2, 2, 3, 5), (2, 2, 4, 5), (2, 2, 4, 5), *([] if bias_shape is None else [bias_shape])]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def attend(query, key, value, bias=None):
        torch.manual_seed(1)
        return t5_ops.fused_attention(query, key, value, bias, p)

    assert gradcheck(attend, tensors)
    query, key, value, *bias = (tensor.detach() for tensor in tensors)
    scores = query @ key.transpose(2, 3) + (bias[0] if bias else 0.0)
    torch.manual_seed(1)
    mask = dropout.dropout_mask(scores.view(4, 3, 4), p).view(scores.shape) if p else 1.0
    expected = ((scores.softmax(-1) * mask) @ value).transpose(1, 2).reshape(2, 3, 10)
    torch.testing.assert_close(attend(query, key, value, *bias), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 17])
def test_softmax_of_short_and_long_rows(length):
    """Rows with scores that exp would overflow for, with padding, and with nothing but padding."""
    torch.manual_seed(0)
    scores = 100.0 * torch.randn(4, 3, length)
    scores[1, :, length // 2 :] -= 30000.0
    scores[2] = -30000.0
    weights = t5_ops._softmax(scores)
    torch.testing.assert_close(weights, scores.double().softmax(-1).float(), rtol=1e-5, atol=1e-30)
    assert (weights[1, :, length // 2 :] == 0.0).all() == (length > 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 12), (16, 20)])
def test_buckets_equal_transformers(bidirectional, num_buckets, max_distance):
    distance = torch.arange(-600, 601)
    expected = ReferenceAttention._relative_position_bucket(distance, bidirectional, num_buckets, max_distance)
    actual = relative_position_bucket(
        distance, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(actual, expected)


def build_overflowing():
    """A model that multiplies beyond float16's 65,504 (transformers#5651), and the largest product per call."""
    torch.manual_seed(0)
    model = create_t5(replace(ARCHITECTURE, dropout=0.0), head="seq2seq").train()
    with torch.no_grad():
        for block in model.encoder.block:
            block.layer[1].DenseReluDense.wi_0.weight.mul_(150)
            block.layer[1].DenseReluDense.wi_1.weight.mul_(150)
    peaks = []
    for block in model.encoder.block:
        block.layer[1].DenseReluDense.wo.register_forward_pre_hook(lambda _, x: peaks.append(x[0].abs().max().item()))
    return model, peaks


@pytest.mark.parametrize("way", ["cast", "autocast"])
def test_half_precision_survives_activations_over_65504(way):
    model, peaks = build_overflowing()
    batch = build_batch()
    expected = model(**batch, with_logits=True).logits
    assert max(peaks) > 65504
    if way == "cast":
        half = copy.deepcopy(model).half()
        kinds = {name.split(".")[-2]: p.dtype for name, p in half.named_parameters()}
        assert kinds["wo"] == torch.float32
        assert {kind for name, kind in kinds.items() if name != "wo"} == {torch.float16}
        actual = half(**batch, with_logits=True).logits.float()
    else:
        with torch.autocast("cpu", dtype=torch.float16):
            actual = model(**batch, with_logits=True).logits.float()
    assert torch.isfinite(actual).all()
    assert (actual - expected).norm() <= 1e-2 * expected.norm()


def train(model, *, dtype=None, scaler=None, steps=6):
    """Losses of some steps with Adafactor, under autocast to `dtype` where one is given."""
    optimizer = Adafactor(model.parameters(), lr=3e-3, relative_step=False)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = model(**build_batch()).loss
        losses.append(loss.item())
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
    return losses


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_under_autocast_follows_float32_with_activations_over_65504(dtype):
    """float16 with a loss scale, as on GPUs that lack bfloat16; its first one is too large here and costs one step."""
    expected = train(build_overflowing()[0])
    assert expected[-1] < 0.5 * expected[0]
    model, peaks = build_overflowing()
    if dtype == torch.float16:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        first, *actual = train(model, dtype=dtype, scaler=scaler, steps=7)
        assert scaler.get_scale() == 2.0**15
        assert first == actual[0]
    else:
        actual = train(model, dtype=dtype)
    assert min(peaks) > 65504
    torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected), rtol=1e-2, atol=0)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 2.0**8), (torch.bfloat16, 1.0)])
def test_a_model_of_half_precision_weights_trains(dtype, scale):
    """Gradients of half the bytes, within a few roundings of float32's on the same rounded weights."""
    model, peaks = build_overflowing()
    half = copy.deepcopy(model).to(dtype)
    model.load_state_dict(half.state_dict())
    (half(**build_batch()).loss * scale).backward()
    assert max(peaks) > 65504
    model(**build_batch()).loss.backward()
    for (name, one), other in zip(half.named_parameters(), model.parameters(), strict=True):
        assert one.grad.dtype == one.dtype
        error = (one.grad.float() / scale - other.grad).norm() / other.grad.norm()
        assert error <= (2e-2 if dtype == torch.float16 else 1e-1), (name, error)
    losses = train(half)
    assert losses[-1] < 0.9 * losses[0]


def test_bfloat16_is_followed_everywhere():
    model = create_t5(ARCHITECTURE, head="seq2seq").bfloat16().eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    output = model(**build_batch(), with_logits=True)
    assert (output.logits.dtype, output.loss.dtype) == (torch.bfloat16, torch.float32)
