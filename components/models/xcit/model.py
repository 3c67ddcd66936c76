"""XCiT, the cross-covariance image transformer: attention between channels, at a cost linear in the pixels.

Paper: El-Nouby et al., "XCiT: Cross-Covariance Image Transformers" (arXiv:2106.09681).
Upstream: facebookresearch/xcit (the authors) and timm's xcit.py, whose names of models and parameters are used here.

Differences from both, and why:
* Most layers have a second, hand-written path, on by default (`fast`), which gives the same numbers, runs fewer
  products and keeps about 40 % of the bytes for the backward pass (`xcit_fast*.py`). `fast=False` is the paper.
* Attention dropout works on every path; timm's fused attention leaves it out.
* Class attention is computed for the class token alone, with keys and values that are never formed; the last block
  leaves the image tokens alone, as nobody reads them (`forward_features` does, and gets them).
* Fourier positions are computed once per size, not per step and image. Images need not be square, nor multiples of the
  patch: like the stem's convolutions, the grid has ceil(size / patch) tokens to a side.
* `norm="group"` for batches too small for BatchNorm; patches of 2 and 4 pixels for small images; any number of
  channels (the authors' code takes three, timm's stem patches of 8 and 16).
* The norms of queries and keys are taken in float32, where float16 overflows.
* The temperature is exempt from weight decay: upstream says so in a method that nothing calls.
* On a CPU, a batch of one image has the stem's true gradients, which a fault of torch's BatchNorm denies timm's model.
* BatchNorm is local to a process; `nn.SyncBatchNorm.convert_sync_batchnorm` works, and takes the plain path.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.shared.output import ModelOutput
from components.models.xcit.architecture import PUBLISHED, XCiTArchitecture, read_name, with_changes
from components.models.xcit.layers import (
    LAYER_NORM_EPSILON,
    ClassAttentionBlock,
    ConvPatchEmbed,
    PositionalEncodingFourier,
    XCABlock,
)
from components.models.xcit.weights import fitted_tensors, read_checkpoint, write_checkpoint

__all__ = ["LOSSES", "PUBLISHED", "XCiT", "XCiTArchitecture", "create_xcit", "load_xcit", "save_xcit"]

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse")
HEAD = ("head.weight", "head.bias")


class XCiT(nn.Module):
    """An image classifier of the given shape with freshly drawn weights (torch's global generator).

    `drop_rate` is dropout before the head, `attn_drop_rate` on attention weights, `drop_path_rate` the chance, equal
    for all blocks, that an image skips a branch. `fast` may be set at any time (`set_fast`). Raises ValueError for a
    rate outside [0, 1) and for an unknown loss.
    """

    def __init__(
        self,
        architecture: XCiTArchitecture,
        *,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        fast: bool = True,
    ) -> None:
        super().__init__()
        _check_settings(
            loss,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            label_smoothing=label_smoothing,
        )
        dim = architecture.embed_dim
        self.architecture, self.loss, self.label_smoothing = architecture, loss, label_smoothing
        self.patch_embed = ConvPatchEmbed(architecture)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = PositionalEncodingFourier(dim)
        self.blocks = nn.ModuleList(
            XCABlock(architecture, attn_drop=attn_drop_rate, drop_path=drop_path_rate)
            for _ in range(architecture.depth)
        )
        self.cls_attn_blocks = nn.ModuleList(
            ClassAttentionBlock(architecture, attn_drop=attn_drop_rate) for _ in range(architecture.cls_attn_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dim, architecture.num_classes) if architecture.num_classes else nn.Identity()
        self.has_fresh_head = True
        self.set_fast(fast)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                initialise_linear(module)

    def set_fast(self, fast: bool) -> None:
        """Choose the hand-written path, or the plain one that specifies it."""
        for module in self.modules():
            if isinstance(module, ConvPatchEmbed | XCABlock | ClassAttentionBlock):
                module.fast = fast

    @property
    def layer_stacks(self) -> tuple[nn.ModuleList]:
        """What an activation plan is applied to: the blocks over all tokens, which hold nearly all that is kept."""
        return (self.blocks,)

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm exempts; vectors, among them LayerScale, are exempt by their shape."""
        return {"cls_token", "pos_embed.token_projection.weight", "pos_embed.token_projection.bias"}

    def embed(self, pixel_values: Tensor) -> tuple[Tensor, int, int]:
        """Images (B, in_chans, height, width) -> tokens (B, N, C) with their positions, and the grid's two sides."""
        expected = self.architecture.in_chans
        if pixel_values.dim() != 4 or pixel_values.shape[1] != expected:
            raise ValueError(
                f"pixel_values: shape {tuple(pixel_values.shape)}, but this model takes (batch, {expected}, height, "
                "width); change the images, or build the model with another in_chans"
            )
        tokens, height, width = self.patch_embed(pixel_values)
        return tokens + self.pos_embed(height, width), height, width

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """All tokens after the last norm, (B, 1 + N, C), the class token first; the head reads it alone."""
        tokens, height, width = self.embed(pixel_values)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        class_token, tokens = self._attend(tokens, keeps_tokens=True)
        normed: Tensor = self.norm(torch.cat([class_token, tokens], dim=1))
        return normed

    def _attend(self, tokens: Tensor, *, keeps_tokens: bool) -> tuple[Tensor, Tensor]:
        class_token = self.cls_token.expand(tokens.shape[0], -1, -1)  # (B, 1, C)
        for index, block in enumerate(self.cls_attn_blocks, start=1):
            is_last = index == len(self.cls_attn_blocks) and not keeps_tokens
            class_token, tokens = block(class_token, tokens, is_last)
        return class_token, tokens

    def forward_head(self, features: Tensor) -> Tensor:
        """Tokens (B, L, C), the class token first -> logits (B, num_classes), or (B, C) without a head."""
        logits: Tensor = self.head(self.head_drop(features[:, 0]))
        return logits

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ModelOutput:
        """Images (B, in_chans, height, width) -> logits (B, num_classes).

        labels: for cross_entropy (B,) int64, or (B, num_classes) shares as mixup makes them; for the other losses
        (B, num_classes), or (B,) with one class.
        """
        tokens, height, width = self.embed(pixel_values)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        class_token, _ = self._attend(tokens, keeps_tokens=False)
        logits = self.forward_head(self.norm(class_token))
        return ModelOutput(logits=logits, loss=None if labels is None else self._mean_loss(logits, labels))

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float() if logits.dtype.itemsize == 2 else logits
        if self.loss == "cross_entropy":
            labels = labels.to(logits.dtype) if labels.is_floating_point() else labels
            return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        targets = labels.view_as(logits).to(logits.dtype)
        if self.loss == "mse":
            return functional.mse_loss(logits, targets)
        # Smoothing over two classes
        targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / 2.0
        return functional.binary_cross_entropy_with_logits(logits, targets)


def initialise_linear(linear: nn.Linear) -> None:
    """The paper's first weights: a normal of 0.02, cut at two units, and no bias."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


def _check_settings(loss: str, **rates: float) -> None:
    if loss not in LOSSES:
        raise ValueError(f"loss: must be one of {', '.join(LOSSES)}, not {loss!r}")
    for name, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{name}: must be in [0, 1), not {rate}")
    if loss == "mse" and rates["label_smoothing"]:
        raise ValueError(
            f"label_smoothing: {rates['label_smoothing']} with loss mse, which has no classes; set it to 0"
        )


def create_xcit(
    name: str | XCiTArchitecture,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    norm: str | None = None,
    patch_size: int | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
    cls_attn_layers: int | None = None,
    num_heads: int | None = None,
    eta: float | None = None,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    fast: bool = True,
) -> XCiT:
    """A model with freshly drawn weights: timm's name ("xcit_small_12_p16_224") or an architecture, and what differs.

    Arguments left None are as the name says (1000 classes, 3 channels, BatchNorm). Raises ValueError as
    `read_name`, `XCiTArchitecture` and `XCiT` do.
    """
    architecture = name if isinstance(name, XCiTArchitecture) else read_name(name)
    architecture = with_changes(
        architecture,
        num_classes=num_classes,
        in_chans=in_chans,
        norm=norm,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        cls_attn_layers=cls_attn_layers,
        num_heads=num_heads,
        eta=eta,
    )
    return XCiT(
        architecture,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
        loss=loss,
        label_smoothing=label_smoothing,
        fast=fast,
    )


def load_xcit(
    checkpoint: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    loss: str = "cross_entropy",
    label_smoothing: float = 0.0,
    fast: bool = True,
    local_files_only: bool = False,
) -> XCiT:
    """A model in float32 with a checkpoint's weights, timm's or the authors'.

    `checkpoint`: a file (.safetensors, .pth), a folder, a Kaggle input, a hub name, or timm's short name
    ("xcit_small_12_p16_224.fb_dist_in1k"). The architecture is what `name`, else config.json, else the tensors say.
    The head is kept unless `num_classes` asks for another size; then it is drawn anew, and `has_fresh_head` says so.
    Raises ValueError that names the file and the tensors that are missing, unexpected or of another shape.
    """
    found = read_checkpoint(checkpoint, name=name, local_files_only=local_files_only)
    has_new_head = num_classes not in (None, found.architecture.num_classes)
    model = create_xcit(
        found.architecture,
        num_classes=num_classes,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
        loss=loss,
        label_smoothing=label_smoothing,
        fast=fast,
    )
    expected = model.state_dict()
    if has_new_head:
        kept = {key: value for key, value in expected.items() if key in HEAD}
        found.tensors = {key: value for key, value in found.tensors.items() if key not in HEAD} | kept
    model.load_state_dict(fitted_tensors(found, expected))
    model.has_fresh_head = has_new_head
    return model


def save_xcit(model: XCiT, folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` into `folder` (made if needed), as timm reads them; return it."""
    return write_checkpoint(model.state_dict(), model.architecture, Path(folder))
