"""T5 and mT5 from an experiment's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.builders.context import ModelContext

if TYPE_CHECKING:
    from torch import nn


def build_t5_from_scratch(
    context: ModelContext,
    *,
    head: str,
    d_model: int,
    d_kv: int,
    d_ff: int,
    num_layers: int,
    num_decoder_layers: int,
    num_heads: int,
    feed_forward: str,
    dropout: float,
    tie_embeddings: bool,
    freeze_embeddings: bool,
    num_beams: int,
    length_penalty: float,
    target_pieces_only: bool,
) -> nn.Module:
    """What generation alone needs (`num_beams` and what follows) it reads from the section."""
    from components.models.t5 import checkpoint as t5
    from components.optim.param_groups import freeze_embeddings as freeze

    assert context.vocab_size is not None
    architecture = t5.T5Architecture(
        vocab_size=context.vocab_size,
        d_model=d_model,
        d_kv=d_kv,
        d_ff=d_ff,
        num_layers=num_layers,
        num_decoder_layers=num_decoder_layers,
        num_heads=num_heads,
        dropout=dropout,
        feed_forward=feed_forward,
        tie_embeddings=tie_embeddings,
    )
    model = t5.create_t5(
        architecture,
        head=head,
        num_classes=context.num_classes,
        loss=context.classifier_loss,
        label_smoothing=context.label_smoothing,
        z_loss=context.z_loss,
    )
    if freeze_embeddings:
        freeze(model)
    return model


def build_t5_pretrained(
    context: ModelContext,
    *,
    checkpoint: str,
    head: str,
    dropout: float,
    freeze_embeddings: bool,
    num_beams: int,
    length_penalty: float,
    target_pieces_only: bool,
) -> nn.Module:
    """What generation alone needs (`num_beams` and what follows) it reads from the section."""
    from components.models.t5 import checkpoint as t5
    from components.models.t5.trimming import trim_t5
    from components.optim.param_groups import freeze_embeddings as freeze

    model = t5.load_t5(
        context.weights or checkpoint,
        head=head,
        num_classes=context.num_classes,
        dropout=dropout,
        loss=context.classifier_loss,
        label_smoothing=context.label_smoothing,
        z_loss=context.z_loss,
    )
    if context.kept_ids is not None and context.weights is None:
        model = trim_t5(model, context.kept_ids)
    if freeze_embeddings:
        freeze(model)
    return model
