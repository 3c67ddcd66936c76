"""An XCiT for inference alone, with BatchNorm and LayerScale folded where that is exact.

In the stem the norm follows its convolution, so scale and shift become the convolution's. In local patch interaction it
stands between GELU and a zero-padded convolution: its shift does not reach through the padding, and the map that would
correct the border costs the pass that folding saves; there it stays. LayerScale becomes the last weights of its branch,
which the training path multiplies anew in every call.
"""

import copy

import torch
from torch import Tensor, nn

from components.models.xcit.fast.common import fold_scale
from components.models.xcit.layers import XCABlock
from components.models.xcit.model import XCiT


def fold_for_inference(model: XCiT) -> XCiT:
    """A copy of the model in evaluation mode, its stem free of norms and its blocks of LayerScale: equal logits up to
    rounding.

    The copy is not for training or saving, as it has other parameters; it is set to the fast path, which also writes
    GELU over its argument. GroupNorm, whose statistics are each image's own, stays.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    folded.set_fast(True)
    for block in folded.blocks:
        _fold_layer_scale(block)
    for stage in folded.patch_embed.proj:
        if isinstance(stage, nn.Sequential) and isinstance(stage[1], nn.BatchNorm2d):
            convolution, norm = stage[0], stage[1]
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight, convolution.bias = _folded(convolution.weight, norm)
            stage[1] = nn.Identity()
    return folded


def _fold_layer_scale(block: nn.Module) -> None:
    assert isinstance(block, XCABlock)
    for name, last in (("gamma1", block.attn.proj), ("gamma3", block.local_mp.conv2), ("gamma2", block.mlp.fc2)):
        assert last.bias is not None
        weight, bias = fold_scale(getattr(block, name), last.weight, last.bias, last.weight.dtype)
        last.weight, last.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))
        setattr(block, name, None)


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("fold_for_inference: BatchNorm without running statistics has nothing to fold")
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    return tuple(nn.Parameter(t, requires_grad=False) for t in (weight * scale[:, None, None, None], bias))  # type: ignore[return-value]
