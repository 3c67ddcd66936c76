"""XCiT's fast path with GroupNorm in half precision, and with norms that are frozen: what CUDA's kernels demand.

CUDA's group norm takes no arguments of mixed types where a CPU's does, and its batch norm asks for saved statistics in
evaluation mode too. So the arguments are held to it here, where there is no GPU.
"""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.models.xcit.fast.convolution import ChannelNorm
from components.models.xcit.folding import fold_for_inference
from components.models.xcit.model import create_xcit

HALVES = [torch.bfloat16, torch.float16]


class Recorder(TorchDispatchMode):
    """Notes the arguments of every call of the named operations."""

    def __init__(self, *names):
        super().__init__()
        self.names, self.calls = names, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.names:
            self.calls.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))

    def count(self, name):
        return sum(called == name for called, _ in self.calls)


def build(norm="group"):
    torch.manual_seed(3)
    model = create_xcit("xcit_nano_12_p16_224", num_classes=3, embed_dim=32, depth=2, norm=norm)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def assert_types_are_one(recorder):
    for name, args in recorder.calls:
        # The backward pass's two statistics are what the forward pass gave, in the type that it gave them
        floats = [value for value in args if isinstance(value, torch.Tensor)]
        assert len({value.dtype for value in floats}) == 1, (name, [value.dtype for value in floats])


@pytest.mark.parametrize("dtype", HALVES)
def test_group_norm_gets_one_type_in_training(dtype):
    model, images, labels = build().train(), torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
    with Recorder("native_group_norm", "native_group_norm_backward") as recorder:
        with torch.autocast("cpu", dtype):
            loss = model(images, labels).loss
        loss.backward()
    # Four norms in the stem, of which three are repeated in the backward pass, and one in each of two blocks
    assert recorder.count("native_group_norm") == 4 + 3 + 2 * 2
    assert recorder.count("native_group_norm_backward") == 4 + 2
    assert_types_are_one(recorder)
    assert {args[0].dtype for _, args in recorder.calls} == {dtype}
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("is_folded", [False, True], ids=["whole", "folded"])
def test_group_norm_gets_one_type_in_prediction_and_equals_the_plain_path(dtype, is_folded):
    model, images = build().eval(), torch.randn(2, 3, 64, 64)
    plain = copy.deepcopy(model)
    plain.set_fast(False)
    fast = fold_for_inference(model) if is_folded else model
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        expected = plain(images).logits
        with Recorder("native_group_norm") as recorder:
            logits = fast(images).logits
    assert recorder.count("native_group_norm") == 6
    assert_types_are_one(recorder)
    torch.testing.assert_close(logits.float(), expected.float(), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_in_half_precision_are_as_near_as_the_plain_paths(dtype):
    model, images, labels = build().train(), torch.randn(2, 3, 64, 64), torch.tensor([0, 2])

    def gradient(fast, *, enabled):
        model.set_fast(fast)
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = model(images, labels).loss
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    exact = gradient(False, enabled=False)
    plain, fast = (float((gradient(path, enabled=True) - exact).norm() / exact.norm()) for path in (False, True))
    assert fast < max(1.5 * plain, 2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_group_norm_is_torchs_to_the_bit(dtype):
    torch.manual_seed(4)
    module = torch.nn.GroupNorm(4, 8)
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 8, 5, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 8, 5, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = ChannelNorm(module)
    out, mean, rstd = norm.apply(x, module.weight.detach(), module.bias.detach())
    grads = norm.backward(grad, x, module.weight.detach(), mean, rstd)
    theirs, pixels = copy.deepcopy(module).to(dtype), x.clone().requires_grad_()
    expected = theirs(pixels)
    expected.backward(grad)
    assert torch.equal(out, expected)
    assert torch.equal(norm.repeat(x, module.weight.detach(), module.bias.detach(), mean, rstd), expected)
    assert torch.equal(grads[0], pixels.grad)
    for mine, parameter in zip(grads[1:], theirs.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, parameter.grad.float())


def test_frozen_batch_norm_has_its_statistics_and_torchs_gradients():
    model, images = build("batch").eval(), torch.randn(2, 3, 64, 64)
    plain = copy.deepcopy(model)
    plain.set_fast(False)
    with Recorder("native_batch_norm_backward") as recorder:
        model(images).logits.sum().backward()
    plain(images).logits.sum().backward()
    assert recorder.count("native_batch_norm_backward") == 4 + 2
    for _, (_, x, _, running_mean, running_var, mean, rstd, is_training, eps, _) in recorder.calls:
        assert not is_training
        assert torch.equal(mean, running_mean)
        torch.testing.assert_close(rstd, (running_var + eps).rsqrt())
        assert mean.shape == rstd.shape == x.shape[1:2]
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)
