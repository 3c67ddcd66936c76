"""What an XCiT sees besides its logits: maps of its blocks, a pyramid for dense tasks, attention as tensors.

Attention maps are computed in evaluation mode without gradients and leave the model as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from components.models.xcit.layers import ClassAttentionBlock, XCABlock
from components.models.xcit.model import XCiT


def forward_intermediates(
    model: XCiT, pixel_values: Tensor, indices: Sequence[int] | None = None, *, norm: bool = False
) -> list[Tensor]:
    """Feature maps (B, C, H, W) behind the blocks `indices` (counted from 0, or from the end below; None: all).

    `norm` applies the model's last norm to each. Blocks behind the last one asked for do not run. Raises ValueError
    for a block that is not there.
    """
    depth = len(model.blocks)
    wanted = _absolute(list(range(depth)) if indices is None else indices, depth)
    tokens, height, width = model.embed(pixel_values)
    maps: dict[int, Tensor] = {}
    for index, block in enumerate(model.blocks[: max(wanted) + 1]):
        tokens = block(tokens, height, width)
        if index in wanted:
            shown = model.norm(tokens) if norm else tokens
            maps[index] = torch.unflatten(shown.transpose(1, 2), 2, (height, width))  # (B, C, H, W)
    return [maps[index] for index in wanted]


def _absolute(indices: Sequence[int], depth: int) -> list[int]:
    if not indices:
        raise ValueError("indices: empty; name at least one block, or None for all")
    for index in indices:
        if not -depth <= index < depth:
            raise ValueError(f"indices: {index}, but the model has blocks 0 to {depth - 1}")
    return [index % depth for index in indices]


class XCiTPyramid(nn.Module):
    """Four maps at 1/4, 1/8, 1/16 and 1/32 of the image, as detection and segmentation heads want them.

    As in the paper's dense tasks (section 4.3): the maps of four blocks at even depths, all at the patch's stride, are
    brought to their levels by transposed convolutions of stride 2 (BatchNorm and GELU between two) or by max pooling.
    """

    STRIDES = (4, 8, 16, 32)

    def __init__(self, model: XCiT, indices: Sequence[int] | None = None) -> None:
        super().__init__()
        depth, dim = len(model.blocks), model.architecture.embed_dim
        if indices is None:
            # Blocks 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24
            indices = [max(0, depth * thirds // 12 - 1) for thirds in (4, 6, 8, 12)]
        if len(indices) != len(self.STRIDES):
            raise ValueError(f"indices: {list(indices)}, but a pyramid has {len(self.STRIDES)} levels, one block each")
        self.model, self.indices = model, _absolute(indices, depth)
        self.levels = nn.ModuleList(_build_level(dim, model.architecture.patch_size, s) for s in self.STRIDES)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Images (B, in_chans, height, width) -> four maps (B, C, height / s, width / s) for s of STRIDES."""
        maps = forward_intermediates(self.model, pixel_values, self.indices)
        return [level(feature_map) for level, feature_map in zip(self.levels, maps, strict=True)]


def _build_level(dim: int, patch_size: int, stride: int) -> nn.Module:
    if stride >= patch_size:
        factor = stride // patch_size
        return nn.Identity() if factor == 1 else nn.MaxPool2d(factor)
    layers: list[nn.Module] = []
    for _ in range((patch_size // stride).bit_length() - 1):
        layers += [nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2), nn.BatchNorm2d(dim), nn.GELU()]
    return nn.Sequential(*layers[:-2])


@contextmanager
def _observed(model: XCiT) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def class_attention_maps(model: XCiT, pixel_values: Tensor) -> Tensor:
    """How much the class token looks at each token: (class blocks, B, heads, H, W); what is missing to 1 is its own."""
    maps = []
    with _observed(model):
        tokens, height, width = model.embed(pixel_values)
        for block in model.blocks:
            tokens = block(tokens, height, width)
        class_token = model.cls_token.expand(len(tokens), -1, -1)
        for class_block in model.cls_attn_blocks:
            assert isinstance(class_block, ClassAttentionBlock)
            normed = class_block.norm1(torch.cat([class_token, tokens], dim=1))
            weights = class_block.attn.weigh(normed)[:, :, 0, 1:]  # (B, h, N)
            maps.append(torch.unflatten(weights, 2, (height, width)))
            class_token, tokens = class_block(class_token, tokens)
    return torch.stack(maps)


def cross_covariance_maps(model: XCiT, pixel_values: Tensor) -> Tensor:
    """XCA's weights, query channel by key channel: (blocks, B, heads, d, d)."""
    maps = []
    with _observed(model):
        tokens, height, width = model.embed(pixel_values)
        for block in model.blocks:
            assert isinstance(block, XCABlock)
            maps.append(block.attn.weigh(block.norm1(tokens))[0])
            tokens = block(tokens, height, width)
    return torch.stack(maps)
