"""Feature maps, pyramid and attention of XCiT."""

import pytest
import timm
import torch

from components.models.xcit.features import (
    XCiTPyramid,
    class_attention_maps,
    cross_covariance_maps,
    forward_intermediates,
)
from components.models.xcit.model import create_xcit

NANO = "xcit_nano_12_p16_224"


@pytest.mark.parametrize("norm", [False, True])
def test_intermediates_are_timms(norm):
    torch.manual_seed(0)
    theirs = timm.create_model(NANO).double().eval()
    ours = create_xcit(NANO).double().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = theirs.forward_intermediates(images, indices=[1, 5], norm=norm, intermediates_only=True)
    maps = forward_intermediates(ours, images, [1, -7], norm=norm)
    assert len(maps) == 2
    for feature_map, other in zip(maps, expected, strict=True):
        assert feature_map.shape == (2, 128, 4, 6)
        torch.testing.assert_close(feature_map, other, rtol=1e-10, atol=1e-10)


def test_a_block_that_is_not_there_is_named():
    model = create_xcit(NANO, embed_dim=32, depth=2)
    with pytest.raises(ValueError, match="indices: 2, but the model has blocks 0 to 1"):
        forward_intermediates(model, torch.randn(1, 3, 32, 32), [2])


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_the_pyramid_has_four_strides_and_trains(patch):
    model = create_xcit(f"xcit_nano_12_p{patch}_64", embed_dim=32, num_heads=4)
    pyramid = XCiTPyramid(model)
    assert pyramid.indices == [3, 5, 7, 11]
    levels = pyramid(torch.randn(2, 3, 64, 128))
    assert [tuple(level.shape) for level in levels] == [(2, 32, 64 // s, 128 // s) for s in (4, 8, 16, 32)]
    sum(level.sum() for level in levels).backward()
    assert model.patch_embed.proj[0][0].weight.grad.abs().sum() > 0


def test_attention_is_what_the_layers_use():
    torch.manual_seed(0)
    model = create_xcit(NANO, embed_dim=32, depth=3, num_heads=4).train()
    images = torch.randn(2, 3, 64, 96)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    heat = class_attention_maps(model, images)
    channels = cross_covariance_maps(model, images)
    assert heat.shape == (2, 2, 4, 4, 6)
    assert channels.shape == (3, 2, 4, 8, 8)
    torch.testing.assert_close(channels.sum(-1), torch.ones(3, 2, 4, 8))
    assert bool((heat.sum((-2, -1)) < 1.0).all())
    assert bool((heat > 0.0).all())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_heat_map_is_timms_class_attention():
    torch.manual_seed(0)
    theirs, ours = timm.create_model(NANO).eval(), create_xcit(NANO).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    seen = []
    attention = theirs.cls_attn_blocks[0].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, args, out: seen.append(out))
    theirs(images)
    heat = class_attention_maps(ours, images)[0].flatten(2)  # (B, h, N)
    torch.testing.assert_close(heat, seen[0][:, :, 0, 1:], rtol=1e-4, atol=1e-6)
