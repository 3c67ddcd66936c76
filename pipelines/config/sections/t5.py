"""T5 v1.1, mT5 and the first T5: models, the texts they read and write, and what builds them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import at_least, one_of, share, shown
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from torch import nn

HEADS = ("seq2seq", "classifier")
FEED_FORWARDS = ("relu", "gated-gelu")
BUILT = ("unigram", "bpe", "character", "word")
VOCABULARIES = (*BUILT, "file", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class T5FromScratch(Section):
    """A T5 v1.1 / mT5 of any size with random weights; its vocabulary is built from the corpus."""

    name: ClassVar[str] = "t5_from_scratch"

    head: str = "seq2seq"
    """seq2seq writes text; classifier reads the classes off the first decoder step."""
    d_model: int = 160
    """Width of the residual stream."""
    d_kv: int = 40
    """Width of one attention head; it need not be d_model / num_heads."""
    d_ff: int = 512
    """Hidden width of the feed-forward layers."""
    num_layers: int = 2
    """Encoder blocks."""
    num_decoder_layers: int = 2
    """Decoder blocks."""
    num_heads: int = 4
    """Attention heads of every attention layer."""
    feed_forward: str = "gated-gelu"
    """gated-gelu (T5 v1.1, mT5) or relu (the first T5)."""
    dropout: float = 0.1
    """Share of activations dropped while training."""
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head; false gives two, as T5 v1.1's checkpoints have."""
    freeze_embeddings: bool = False
    """Keep the embedding matrix at its first values."""
    num_beams: int = 1
    """Beams when text is generated; 1 is greedy, and costs the least."""
    length_penalty: float = 1.0
    """Exponent on the length by which a beam's score is divided; above 0 favours longer text."""
    target_pieces_only: bool = False
    """Write only pieces that occur in the training labels: no stray scripts, and a head as small as the answers are."""

    def __post_init__(self) -> None:
        at_least(self, 1, "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
        one_of(self, "feed_forward", FEED_FORWARDS)
        _check_head(self)


@dataclass(frozen=True, kw_only=True)
class T5Pretrained(Section):
    """A published T5, T5 v1.1 or mT5 with its own vocabulary."""

    name: ClassVar[str] = "t5_pretrained"

    checkpoint: str
    """A hub name, a folder, kaggle:owner/slug for an attached Kaggle dataset, or run:EXPERIMENT to go on from a run."""
    head: str = "seq2seq"
    """seq2seq writes text; classifier reads the classes off the first decoder step."""
    dropout: float = 0.1
    """Share of activations dropped while training; v1.1 and mT5 were pre-trained without, so it is set again here."""
    freeze_embeddings: bool = False
    """Keep the embedding matrix as published: most of mT5's weights, and easily over-fitted on a small corpus."""
    num_beams: int = 1
    """Beams when text is generated; 1 is greedy, and costs the least."""
    length_penalty: float = 1.0
    """Exponent on the length by which a beam's score is divided; above 0 favours longer text."""
    target_pieces_only: bool = False
    """Write only pieces that occur in the training labels: no stray scripts, and a head as small as the answers are."""

    def __post_init__(self) -> None:
        if not self.checkpoint.strip():
            raise ValueError("checkpoint: empty; needs a hub name, a folder or kaggle:owner/slug")
        _check_head(self)


@dataclass(frozen=True, kw_only=True)
class Text(Section):
    """The competition's prompt as token ids, and for seq2seq the label as well."""

    name: ClassVar[str] = "text"

    max_source_length: int = 64
    """Tokens of a prompt, the closing one included; what is longer is cut."""
    max_target_length: int = 32
    """Tokens of a label, the closing one included, and the limit of generation."""
    vocabulary: str = "unigram"
    """unigram, bpe, character, word: built from prompts and labels; file: a published one; checkpoint: the weights'."""
    vocabulary_size: int = 4000
    """Pieces of a vocabulary that is built; a small corpus may yield fewer. Not used with file and checkpoint."""
    vocabulary_file: str | None = None
    """With file: a sentencepiece model, by its path, or as package:NAME/PATH in an installed package."""
    trim_vocabulary: bool = False
    """With file and checkpoint: keep only pieces that the competition's texts use, and their rows of the weights."""
    trim_for: str | None = None
    """With trim_vocabulary: another competition whose texts keep their pieces, for a second stage there."""
    balance_exponent: float = 1.0
    """Share of a group the metric averages over (a language) as a power of its size; 1 as it is, 0 all equal."""
    max_train_rows: int | None = None
    """Train on so many rows, drawn once with the experiment's seed; null takes all."""
    max_valid_rows: int | None = None
    """Score so many validation rows during training; null takes all, and the final OOF always does."""

    def __post_init__(self) -> None:
        at_least(self, 2, "max_source_length", "max_target_length")
        one_of(self, "vocabulary", VOCABULARIES)
        # pad, end and unknown are three, and a vocabulary of nothing else reads nothing
        at_least(self, 4, "vocabulary_size")
        at_least(self, 1, "max_train_rows", "max_valid_rows")
        _check_vocabulary(self)
        if not 0 <= self.balance_exponent <= 1:
            raise ValueError(f"balance_exponent: {self.balance_exponent} is out of range; needs 0 to 1")


def _check_head(section: T5FromScratch | T5Pretrained) -> None:
    one_of(section, "head", HEADS)
    share(section, "dropout")
    at_least(section, 1, "num_beams")
    at_least(section, -10, "length_penalty")
    if section.head == "classifier" and section.num_beams > 1:
        raise ValueError(f"num_beams: {section.num_beams} with head classifier, which generates nothing; needs 1")
    if section.head == "classifier" and section.target_pieces_only:
        raise ValueError("target_pieces_only: true with head classifier, which generates nothing; needs false")


def _check_vocabulary(data: Text) -> None:
    if data.vocabulary == "file" and data.vocabulary_file is None:
        raise ValueError("vocabulary: file without vocabulary_file; needs its path there")
    if data.vocabulary != "file" and data.vocabulary_file is not None:
        raise ValueError(
            f"vocabulary_file: {shown(data.vocabulary_file)} with vocabulary: {data.vocabulary}; needs null, or "
            "vocabulary: file"
        )
    if data.trim_vocabulary and data.vocabulary in BUILT:
        raise ValueError(
            f"trim_vocabulary: true with vocabulary: {data.vocabulary}, which holds nothing else; needs false"
        )
    if data.trim_for is not None and not data.trim_vocabulary:
        raise ValueError(f"trim_for: {data.trim_for} without trim_vocabulary: true; needs null")


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
) -> "nn.Module":
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
) -> "nn.Module":
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
