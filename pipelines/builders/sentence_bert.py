"""Sentence encoders from an experiment's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.builders.context import ModelContext

if TYPE_CHECKING:
    from torch import nn


def build_sentence_bert(
    context: ModelContext,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_positions: int,
    bag_size: int,
    dropout: float,
    temperature: float,
    teacher_temperature: float,
) -> nn.Module:
    """With random weights."""
    from components.models.bert.checkpoint import BertArchitecture, BertEncoder
    from components.models.sentence.model import SentenceModel
    from components.models.sentence.wide import TextVectors, WideEncoder

    assert context.vocab_size is not None
    trunk = BertEncoder(
        BertArchitecture(
            vocab_size=context.vocab_size,
            hidden_size=hidden_size,
            embedding_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            intermediate_size=intermediate_size,
            max_positions=max_positions,
            dropout=dropout,
            attention_dropout=dropout,
        )
    )
    encoder: TextVectors = WideEncoder(trunk, bag_size) if bag_size else trunk
    encoder.initialise()
    return SentenceModel(encoder, temperature=temperature, teacher_temperature=teacher_temperature)


def build_sentence_bert_pretrained(
    context: ModelContext, *, checkpoint: str, dropout: float, temperature: float, teacher_temperature: float
) -> nn.Module:
    """From the weights that the run took over."""
    from components.models.sentence.model import SentenceModel
    from components.models.sentence.wide import load_vectors_encoder

    assert context.weights is not None, f"{checkpoint} was not taken over"
    encoder = load_vectors_encoder(context.weights, dropout=dropout, attention_dropout=dropout)
    return SentenceModel(encoder, temperature=temperature, teacher_temperature=teacher_temperature)
