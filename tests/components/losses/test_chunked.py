"""Head and loss in chunks against the plain ones: numbers, memory, precision, and what autograd may ask of them."""

import gc
import math
import weakref

import pytest
import torch
from torch.nn import functional

from components.losses import by_task as losses
from components.losses import chunked as chunked_cross_entropy
from components.losses.chunked import linear_cross_entropy, tied_lookup
from components.memory.measuring import peak_bytes, saved_bytes

TOKENS, WIDTH, PIECES = 50, 16, 300


def build_inputs(dtype=torch.float64, *, pieces=PIECES, ignored=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(pieces, WIDTH, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, pieces, (TOKENS,), generator=generator)
    if ignored:
        labels[::7] = -100
    return hidden, weight, labels


def plain_loss(hidden, weight, labels, *, label_smoothing=0.0, z_loss=0.0):
    logits = functional.linear(hidden, weight)
    loss = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return loss + z_loss * logits.logsumexp(1)[labels != -100].square().mean()


def gradients(loss, *tensors):
    return torch.autograd.grad(loss * 3.0, tensors)


def assert_close(actual, expected, tolerance):
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 25, 10_000, None])
@pytest.mark.parametrize(("label_smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.3, 1e-2)])
def test_loss_and_both_gradients_equal_the_plain_ones_in_float64(label_smoothing, z_loss, rows, ignored):
    hidden, weight, labels = build_inputs(ignored=ignored)
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    expected = plain_loss(hidden, weight, labels, **options)
    size = None if rows is None else rows * PIECES * 8
    actual = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=size, **options)
    assert abs(actual - expected) <= 1e-10 * expected
    assert_close(gradients(actual, hidden, weight), gradients(expected, hidden, weight), 1e-10)


def test_float32_with_logits_far_apart():
    """Half of the probabilities are below float32's range; the loss of an unlikely label stays exact."""
    hidden, weight, labels = build_inputs(torch.float32)
    with torch.no_grad():
        hidden.mul_(30.0)
    expected = plain_loss(hidden, weight, labels)
    assert expected > 90
    actual = linear_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert_close(gradients(actual, hidden, weight), gradients(expected, hidden, weight), 1e-5)


def test_float32_gradients_hold_no_number_whose_products_would_be_subnormal():
    """With one token of width 1, which is 1, logits are the weight and its gradient the softmax less the label's 1."""
    logits = torch.linspace(0.0, -200.0, 401, dtype=torch.float64).unsqueeze(1)
    expected = logits.softmax(0)
    for dtype, least in ((torch.float32, chunked_cross_entropy.LEAST_PROBABILITY), (torch.float64, 0.0)):
        weight = logits.to(dtype).requires_grad_()
        loss = linear_cross_entropy(torch.ones(1, 1, dtype=dtype), weight, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(loss, weight)
        counts = expected[1:] >= least
        torch.testing.assert_close(gradient[1:][counts].double(), expected[1:][counts], rtol=1e-5, atol=0)
        assert (gradient[1:][~counts] == 0).all()
    assert (expected < 1.2e-38).sum() > 200


def test_no_label_that_counts_costs_nothing_and_moves_nothing():
    hidden, weight, labels = build_inputs()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, -100), label_smoothing=0.1)
    assert loss.item() == losses.cross_entropy(hidden @ weight.T, torch.full_like(labels, -100)).item() == 0.0
    assert [gradient.abs().sum().item() for gradient in gradients(loss, hidden, weight)] == [0.0, 0.0]


def test_another_ignored_index():
    hidden, weight, labels = build_inputs()
    expected = linear_cross_entropy(hidden, weight, labels)
    assert torch.equal(
        linear_cross_entropy(hidden, weight, labels.masked_fill(labels == -100, -1), ignore_index=-1), expected
    )


def test_a_label_outside_the_vocabulary_is_refused():
    hidden, weight, labels = build_inputs()
    labels[3] = PIECES
    with pytest.raises(RuntimeError, match=f"index {PIECES} is out of bounds"):
        linear_cross_entropy(hidden, weight, labels)


def test_smoothing_everything_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing: must be in \[0, 1\), not 1.0"):
        linear_cross_entropy(*build_inputs(), label_smoothing=1.0)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_only_what_is_trained_gets_a_gradient(trained):
    hidden, weight, labels = build_inputs()
    tensor = hidden if trained == "hidden" else weight
    (expected,) = gradients(plain_loss(hidden, weight, labels), tensor)
    (weight if trained == "hidden" else hidden).requires_grad_(False)
    loss = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=20_000)
    assert_close(gradients(loss, tensor), [expected], 1e-10)
    loss = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=20_000)
    loss.backward()
    assert (hidden.grad is None, weight.grad is None) == (trained == "weight", trained == "hidden")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_a_chunk_is_held(mode):
    hidden, weight, labels = build_inputs(torch.float32, pieces=4000)
    expected = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=2 * 16_000)
    with mode():
        loss = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=2 * 16_000)
        peak = peak_bytes(lambda: linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=2 * 16_000))
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    assert 2 * 16_000 <= peak <= 2 * 16_000 + 4 * TOKENS * WIDTH * 4


# What autograd may ask


def test_the_weights_gradient_becomes_the_parameters_own_without_a_copy():
    hidden, weight, labels = build_inputs(torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels)
    made = loss.grad_fn.gradients[1].data_ptr()
    (loss * 0.5).backward()
    assert weight.grad.data_ptr() == made


def test_a_loss_that_is_never_differentiated_frees_its_gradients():
    hidden, weight, labels = build_inputs()
    gc.disable()
    try:
        loss = linear_cross_entropy(hidden, weight, labels)
        made = weakref.ref(loss.grad_fn.gradients[1])
        del loss
        assert made() is None
    finally:
        gc.enable()


def test_a_kept_graph_gives_its_gradients_again_and_adds_them_up():
    hidden, weight, labels = build_inputs()
    once = gradients(linear_cross_entropy(hidden, weight, labels), hidden, weight)
    loss = linear_cross_entropy(hidden, weight, labels)
    for _ in range(3):
        (loss * 3.0).backward(retain_graph=True)
    assert_close((hidden.grad, weight.grad), [3 * gradient for gradient in once], 1e-12)


def test_a_freed_graph_a_changed_weight_and_a_second_derivative_are_refused():
    hidden, weight, labels = build_inputs()
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    loss = linear_cross_entropy(hidden, weight, labels)
    with torch.no_grad():
        weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = linear_cross_entropy(hidden, weight, labels)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_a_tied_weight_gets_one_gradient_from_lookup_and_head():
    hidden, weight, labels = build_inputs()
    ids = torch.randint(0, PIECES, (TOKENS,), generator=torch.Generator().manual_seed(1))
    factor = hidden.detach()
    (expected,) = gradients(plain_loss(functional.embedding(ids, weight) * factor, weight, labels), weight)
    rows, head_weight = tied_lookup(weight, ids)
    assert torch.equal(rows, weight[ids])
    assert head_weight.data_ptr() == weight.data_ptr()
    loss = linear_cross_entropy(rows * factor, head_weight, labels)
    made = loss.grad_fn.gradients[1].data_ptr()
    (loss * 3.0).backward()
    assert_close([weight.grad], [expected], 1e-10)
    assert weight.grad.data_ptr() == made


def test_a_tied_lookup_without_its_head_or_its_rows_is_still_right():
    _, weight, _ = build_inputs()
    ids = torch.tensor([3, 5, 3])
    rows, head_weight = tied_lookup(weight, ids)
    (gradient,) = torch.autograd.grad(rows.sum(), weight, retain_graph=True)
    assert gradient.sum(1).tolist() == [2.0 * WIDTH if i == 3 else 1.0 * WIDTH * (i == 5) for i in range(PIECES)]
    (gradient,) = torch.autograd.grad(head_weight.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))
    weight.requires_grad_(False)
    assert not any(tensor.requires_grad for tensor in tied_lookup(weight, ids))


# Memory


@pytest.mark.parametrize("pieces", [1000, 10_000])
def test_no_memory_but_the_gradients_grows_with_the_vocabulary(pieces):
    """Kept until backward: both gradients. At the peak also one chunk, here of one row, and a few vectors."""
    hidden, weight, labels = build_inputs(torch.float32, pieces=pieces, ignored=False)
    chunk = pieces * 4

    def forward():
        return linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=chunk)

    def step():
        forward().backward()
        hidden.grad = weight.grad = None

    step()
    gradient_bytes = (TOKENS + pieces) * WIDTH * 4
    others = saved_bytes(forward) - gradient_bytes
    assert 0 <= others <= 512
    assert gradient_bytes + chunk <= peak_bytes(step) <= gradient_bytes + chunk + 3 * TOKENS * WIDTH * 4


def test_a_small_vocabulary_is_one_chunk_and_a_large_one_has_rows_enough():
    count_rows = chunked_cross_entropy._count_rows
    assert count_rows(700, 4_000 * 4, None) == 700  # 11 MB
    assert count_rows(1024, 250_112 * 4, None) == 128
    assert count_rows(1025, 250_112 * 4, None) == math.ceil(1025 / 9)  # no chunk of a single row
    assert count_rows(1024, 250_112 * 4, 64 * 2**20) == 64
    assert count_rows(1024, 250_112 * 4, 1) == 1
    assert count_rows(0, 4_000, None) == 1


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, monkeypatch):
    """Equal to float32 on the same rounded numbers, so that only the gradients' last rounding differs."""
    monkeypatch.setattr(chunked_cross_entropy, "CHUNK_BYTES", 64 * WIDTH * 4)  # the weight is widened 64 rows at a time
    hidden, weight, labels = build_inputs(dtype)
    wide_hidden, wide_weight = (tensor.detach().float().requires_grad_() for tensor in (hidden, weight))
    expected = plain_loss(wide_hidden, wide_weight, labels, label_smoothing=0.1)
    actual = linear_cross_entropy(hidden, weight, labels, label_smoothing=0.1, max_chunk_bytes=9 * PIECES * 4)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    found = gradients(actual, hidden, weight)
    assert {gradient.dtype for gradient in found} == {dtype}
    assert_close([g.float() for g in found], gradients(expected, wide_hidden, wide_weight), torch.finfo(dtype).eps)


def test_loss_scaling_reaches_gradients_that_float16_cannot_hold():
    """The mean over many labels makes them small; the scale must come before the rounding, not after."""
    hidden, weight, labels = build_inputs(torch.float16)
    scale, shrink = 2.0**16, 2.0**-20
    (unscaled,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels) * shrink, weight)
    (scaled,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels) * shrink * scale, weight)
    (wide,) = torch.autograd.grad(linear_cross_entropy(hidden.float(), weight.float(), labels) * shrink * scale, weight)
    assert (unscaled == 0).float().mean() > 0.5
    assert_close([scaled.float()], [wide.float()], 1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_reach_inside(dtype):
    hidden, weight, labels = build_inputs(torch.float32)
    expected = linear_cross_entropy(hidden, weight, labels)
    with torch.autocast("cpu", dtype=dtype):
        actual = linear_cross_entropy(hidden, weight, labels)
    assert torch.equal(actual, expected)
    for one, other in zip(gradients(actual, hidden, weight), gradients(expected, hidden, weight), strict=True):
        assert torch.equal(one, other)


def test_mixed_types_are_promoted_and_each_gets_its_own_back():
    hidden, weight, labels = build_inputs(torch.float32)
    expected = plain_loss(hidden, weight.half().float(), labels)
    half = weight.detach().half().requires_grad_()
    actual = linear_cross_entropy(hidden, half, labels)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    found = gradients(actual, hidden, half)
    assert [gradient.dtype for gradient in found] == [torch.float32, torch.float16]
    assert_close([found[0]], gradients(expected, hidden), 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gpu_multiplies_half_precision_into_float32(dtype):
    hidden, weight, labels = (t.detach().cuda() for t in build_inputs(torch.float32))
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    expected = plain_loss(hidden, weight, labels)
    with torch.autocast("cuda", dtype=dtype):
        actual = linear_cross_entropy(hidden, weight, labels, max_chunk_bytes=9 * PIECES * 4)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(actual, expected, rtol=4 * eps, atol=0)
    assert_close(gradients(actual, hidden, weight), gradients(expected, hidden, weight), 8 * eps)
