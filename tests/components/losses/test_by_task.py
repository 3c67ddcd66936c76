"""Losses against hand values and float64 definitions, and the weighing that makes divided steps equal whole ones."""

import math

import pytest
import torch

from components.losses.by_task import LOSSES, binary_cross_entropy, count_targets, cross_entropy, mean_squared_error


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def smoothed_cross_entropy(logits, labels, smoothing):
    """By definition, one target after the other, in float64."""
    logits, labels = logits.double().reshape(-1, logits.shape[-1]), labels.reshape(-1)
    losses = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label != -100:
            target = torch.full_like(row, smoothing / len(row))
            target[label] += 1 - smoothing
            losses.append(-(target * (row - row.logsumexp(0))).sum())
    return torch.stack(losses).mean()


def test_table_has_a_loss_for_every_task():
    assert {
        "binary": cross_entropy,
        "multiclass": cross_entropy,
        "multilabel": binary_cross_entropy,
        "regression": mean_squared_error,
        "text_to_text": cross_entropy,
    } == LOSSES


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(6,), (3, 5)])
def test_cross_entropy_is_the_mean_over_targets_that_count(shape, smoothing):
    logits, labels = torch.randn(*shape, 7, dtype=torch.float64) * 3, torch.randint(7, shape)
    labels[..., -1] = -100
    loss = cross_entropy(logits, labels, label_smoothing=smoothing)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, smoothed_cross_entropy(logits, labels, smoothing), rtol=0, atol=1e-14)
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(loss, theirs, rtol=0, atol=1e-14)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
    assert cross_entropy(logits, torch.tensor([1, -100])).item() == pytest.approx(math.log(4 / 3), abs=1e-7)
    assert cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(
        (math.log(4) + math.log(2)) / 2, abs=1e-6
    )


def test_nothing_to_learn_costs_nothing():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3), -100), label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(2, 3, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, labels = torch.randn(64, 500).to(dtype).requires_grad_(), torch.randint(500, (64,))
    loss = cross_entropy(logits * 4, labels)
    assert loss.dtype == torch.float32
    expected = smoothed_cross_entropy((logits * 4).detach(), labels, 0.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert logits.grad.dtype == dtype
    # A sum of squares beyond float16's 65,504 stays finite.
    assert mean_squared_error(torch.full((4,), 300.0, dtype=dtype), torch.zeros(4)).item() == 90_000.0
    assert binary_cross_entropy(torch.zeros(2, 3, dtype=dtype), torch.ones(2, 3)).dtype == torch.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_equals_its_definition(smoothing):
    logits = torch.randn(8, 4, dtype=torch.float64)
    labels = torch.randint(2, (8, 4)).float()
    targets = labels.double() * (1 - smoothing) + smoothing / 2
    yes, no = logits.sigmoid(), (-logits).sigmoid()
    expected = -(targets * yes.log() + (1 - targets) * no.log()).mean()
    loss = binary_cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-14)
    assert binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(math.log(2))


def test_mean_squared_error_does_not_broadcast():
    labels = torch.tensor([1.0, -100.0])  # to a value, -100 is a value
    assert mean_squared_error(torch.tensor([3.0, -100.0]), labels).item() == 2.0
    assert mean_squared_error(torch.tensor([[3.0], [-100.0]]), labels).item() == 2.0
    with pytest.raises(AssertionError, match=r"logits \(2, 2\) do not fit labels \(2,\)"):
        mean_squared_error(torch.zeros(2, 2), labels)
    with pytest.raises(ValueError, match=r"label_smoothing: 0\.1, but values have no classes"):
        mean_squared_error(torch.zeros(2), labels, label_smoothing=0.1)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(AssertionError, match=r"logits \(2, 3, 5\) do not fit labels \(2, 4\)"):
        cross_entropy(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(AssertionError, match=r"logits \(2, 3\) do not fit labels \(2,\)"):
        binary_cross_entropy(torch.zeros(2, 3), torch.zeros(2))


def test_count_targets():
    tokens = torch.tensor([[4, 1, -100], [0, -100, -100]])
    assert count_targets(tokens).item() == 3
    assert count_targets(torch.tensor([0, 2, 1])).item() == 3
    assert count_targets(torch.zeros(4, 5)).item() == 20
    assert count_targets(torch.tensor([1.5, -100.0])).item() == 2
    assert all(count_targets(labels).dtype == torch.int64 for labels in (tokens, torch.zeros(4)))


@pytest.mark.parametrize("task", ["text_to_text", "multilabel", "regression"])
def test_micro_batches_weighed_by_their_targets_equal_one_batch(task):
    loss = LOSSES[task]
    if task == "text_to_text":
        logits, labels = torch.randn(6, 9, 11, dtype=torch.float64), torch.randint(11, (6, 9))
        for row, length in enumerate((9, 1, 4, 0, 7, 2)):  # one sequence without any target
            labels[row, length:] = -100
    elif task == "multilabel":
        logits, labels = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 3).round()
    else:
        logits, labels = torch.randn(6, 1, dtype=torch.float64), torch.randn(6)
    logits.requires_grad_()
    (whole,) = torch.autograd.grad(loss(logits, labels), logits)
    total = count_targets(labels)
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    divided = sum(loss(logits[part], labels[part]) * count_targets(labels[part]) / total for part in parts)
    torch.testing.assert_close(divided, loss(logits, labels), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad(divided, logits)[0], whole, rtol=0, atol=1e-14)
