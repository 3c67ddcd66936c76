"""BERT-like encoders: the model, the texts or pairs it reads, and what builds it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import at_least, one_of, share, shown
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from torch import nn

POOLINGS = ("mean", "cls", "max", "attention", "pooler")
FROZEN = ("none", "embeddings", "encoder")


@dataclass(frozen=True, kw_only=True)
class Bert(Section):
    """A published BERT-like encoder with a head for classes, labels or a value, over one text or a pair."""

    name: ClassVar[str] = "bert"

    checkpoint: str
    """A hub name, a folder, kaggle:owner/slug, package:NAME/FOLDER when installed, or run:EXPERIMENT to go on."""
    pooling: str = "mean"
    """One vector of a text's tokens: mean, max, cls (the first), attention (learned weights), pooler (published)."""
    dropout: float | None = None
    """Share of activations dropped while training; null keeps the checkpoint's own."""
    attention_dropout: float | None = None
    """Share of attention weights dropped while training; null keeps the checkpoint's own."""
    head_dropout: float = 0.1
    """Share of the pooled vector dropped before the head."""
    num_dropout_samples: int = 1
    """Dropout masks on the pooled vector whose losses are averaged; they cost next to nothing."""
    reinitialise_layers: int = 0
    """Draw so many of the last layers anew: they know the pre-training's task best."""
    freeze: str = "none"
    """none; embeddings: keep the word embeddings as published; encoder: train the head alone."""
    train_used_embeddings: bool = True
    """Train only the word embeddings that occur in the training rows; others have no gradient and only cost time."""

    def __post_init__(self) -> None:
        if not self.checkpoint.strip():
            raise ValueError("checkpoint: empty; needs a hub name, a folder, kaggle:owner/slug or package:NAME/FOLDER")
        one_of(self, "pooling", POOLINGS)
        one_of(self, "freeze", FROZEN)
        share(self, "dropout", "attention_dropout", "head_dropout")
        at_least(self, 1, "num_dropout_samples")
        at_least(self, 0, "reinitialise_layers")


@dataclass(frozen=True, kw_only=True)
class Segments(Section):
    """One text or two as ids of the checkpoint's own tokenizer."""

    name: ClassVar[str] = "segments"

    max_length: int = 128
    """Tokens of a text or a pair, the closing and parting ones included; of a pair the longer text is cut first."""
    first_column: str | None = None
    """An input column as the text; null takes the competition's prompt."""
    second_column: str | None = None
    """Another one as the second segment of a pair; null for single texts."""
    max_train_rows: int | None = None
    """Train on so many rows, drawn once with the experiment's seed; null takes all."""
    max_valid_rows: int | None = None
    """Score so many validation rows during training; null takes all, and the final OOF always does."""

    def __post_init__(self) -> None:
        at_least(self, 4, "max_length")
        at_least(self, 1, "max_train_rows", "max_valid_rows")
        if self.second_column is not None and self.first_column in (None, self.second_column):
            raise ValueError(
                f"second_column: {self.second_column} with first_column: {shown(self.first_column)}; needs another "
                "column there"
            )


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
) -> "nn.Module":
    """Which embeddings are used (`train_used_embeddings`) is known to who has the rows."""
    from components.models.bert.checkpoint import load_bert
    from components.optim.param_groups import freeze_embeddings
    from pipelines.config.checkpoints import find_checkpoint

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
