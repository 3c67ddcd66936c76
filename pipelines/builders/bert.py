"""BERT-like encoders from an experiment's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.builders.context import ModelContext

if TYPE_CHECKING:
    from torch import nn


def build_bert(
    context: ModelContext,
    *,
    checkpoint: str,
    pooling: str,
    dropout: float | None,
    attention_dropout: float | None,
    head_dropout: float,
    num_dropout_samples: int,
    reinitialise_layers: int,
    freeze: str,
    train_used_embeddings: bool,
) -> nn.Module:
    """Which embeddings are used (`train_used_embeddings`) is known to who has the rows."""
    from components.models.bert.checkpoint import load_bert
    from components.optim.param_groups import freeze_embeddings
    from pipelines.builders.checkpoints import find_checkpoint

    model = load_bert(
        context.weights or find_checkpoint(checkpoint),
        num_outputs=context.num_classes,
        pooling=pooling,
        loss=context.classifier_loss,
        dropout=dropout,
        attention_dropout=attention_dropout,
        head_dropout=head_dropout,
        num_dropout_samples=num_dropout_samples,
        reinitialise_layers=reinitialise_layers,
        label_smoothing=context.label_smoothing,
        # Another run's head stays where this task's has the same form
        replace_head=context.weights is not None,
    )
    if freeze == "embeddings":
        freeze_embeddings(model)
    elif freeze == "encoder":
        model.encoder.requires_grad_(False)
    return model
