"""What XCiT's hand-written steps compute and keep, counted."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.models.xcit.model import create_xcit


def count_flops(run):
    """Of matrix products; the counter forgets the groups of a convolution's backward pass."""
    with FlopCounterMode(display=False) as counter:
        run()
    return sum(n for name, n in counter.get_flop_counts()["Global"].items() if "convolution" not in str(name))


@pytest.mark.parametrize("size", [64, 224], ids=["standard", "gram"])
def test_no_product_is_computed_twice(size):
    model = create_xcit("xcit_tiny_12_p8_224", num_classes=3, embed_dim=64, depth=2).train()
    images = torch.randn(1, 3, size, size)
    forward = count_flops(lambda: model(images))
    assert forward < count_flops(lambda: timm_forward(images))
    assert count_flops(lambda: model(images).logits.sum().backward()) <= 3 * forward


def timm_forward(images):
    return timm.create_model("xcit_tiny_12_p8_224", num_classes=3, embed_dim=64, depth=2)(images)


def count_saved_maps(model, tokens):
    """Bytes that one block keeps for the backward pass, in maps of its tokens; parameters do not count."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.blocks[0](tokens, 14, 14)
    assert out.requires_grad
    kept = sum(t.untyped_storage().nbytes() for place, t in storages.items() if place not in own)
    return kept / (tokens.numel() * tokens.element_size())


def test_a_block_keeps_eleven_maps():
    """x, q, k, v; x, one convolution; x, four of the hidden layer. timm's block keeps 27."""
    model = create_xcit("xcit_small_12_p16_224", num_classes=0, depth=1).train()
    tokens = torch.randn(1, 196, 384, requires_grad=True)
    # The scores of XCA are d / N of a map; statistics and squared norms are less
    assert 11.0 + 48 / 196 <= count_saved_maps(model, tokens) < 11.0 + 48 / 196 + 0.03


def test_the_gram_form_keeps_less_than_eleven_maps():
    model = create_xcit("xcit_small_12_p16_224", num_classes=0, depth=1, embed_dim=96).train()
    tokens = torch.randn(1, 196, 96, requires_grad=True)
    # x and three C x C matrices in place of x, q, k and v
    assert count_saved_maps(model, tokens) < 8.0 + 3 * 96 / 196 + 0.2


def test_a_second_derivative_is_refused():
    model = create_xcit("xcit_nano_12_p16_224", num_classes=3, embed_dim=32, depth=1)
    tokens = torch.randn(1, 16, 32, requires_grad=True)
    loss = model.blocks[0](tokens, 4, 4).square().sum()
    (grad,) = torch.autograd.grad(loss, tokens, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
