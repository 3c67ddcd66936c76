"""XCiT from an experiment's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.builders.context import ModelContext

if TYPE_CHECKING:
    from torch import nn


def build_xcit(
    context: ModelContext,
    *,
    architecture: str,
    checkpoint: str | None,
    patch_size: int | None,
    embed_dim: int | None,
    depth: int | None,
    cls_attn_layers: int | None,
    num_heads: int | None,
    eta: float | None,
    norm: str,
    drop_rate: float,
    attn_drop_rate: float,
    drop_path_rate: float,
) -> nn.Module:
    """With a checkpoint name and sizes are its own."""
    from components.models.xcit import model as xcit

    if checkpoint is None:
        return xcit.create_xcit(
            architecture,
            num_classes=context.num_classes,
            in_chans=context.in_chans,
            norm=norm,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            cls_attn_layers=cls_attn_layers,
            num_heads=num_heads,
            eta=eta,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            loss=context.classifier_loss,
            label_smoothing=context.label_smoothing,
        )
    model = xcit.load_xcit(
        context.weights or checkpoint,
        num_classes=context.num_classes,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
        loss=context.classifier_loss,
        label_smoothing=context.label_smoothing,
    )
    takes = model.architecture.in_chans
    if takes != context.in_chans:
        raise ValueError(f"{checkpoint}: takes {takes} channels and data.in_chans is {context.in_chans}; needs {takes}")
    return model
