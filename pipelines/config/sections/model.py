"""The models an experiment can name."""

from dataclasses import dataclass
from typing import ClassVar

from components.models.xcit.architecture import NORMS, XCiTArchitecture, read_name, with_changes
from pipelines.config.checks import above, at_least, one_of, share
from pipelines.config.sections.section import Section

HEADS = ("seq2seq", "classifier")
FEED_FORWARDS = ("relu", "gated-gelu")
ESTIMATORS = ("auto", "linear", "boosting")
PIXEL_ESTIMATORS = ("nearest_neighbours", "logistic_regression", "svm_rbf")
XCIT_SIZES = ("patch_size", "embed_dim", "depth", "cls_attn_layers", "num_heads", "eta")
POOLINGS = ("mean", "cls", "max", "attention", "pooler")
FROZEN = ("none", "embeddings", "encoder")

RUN_PREFIX = "run:"
"""What a checkpoint begins with that is a run's, by the experiment or the run's id."""


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
class XCiT(Section):
    """The cross-covariance image transformer: a published size, another of one's own, or published weights."""

    name: ClassVar[str] = "xcit"

    architecture: str = "xcit_nano_12_p16_224"
    """timm's name of a size, patch and training resolution; the last binds nothing. The fields below change it."""
    checkpoint: str | None = None
    """Weights to start from: a hub name, timm's short name, a file or folder, or kaggle:owner/slug; null draws them."""
    patch_size: int | None = None
    """Pixels to a token's side: 2, 4, 8 or 16; null as the name says."""
    embed_dim: int | None = None
    """Width of a token; null as the name says."""
    depth: int | None = None
    """Blocks of cross-covariance attention, before those of class attention; null as the name says."""
    cls_attn_layers: int | None = None
    """Blocks of class attention; null for the usual two."""
    num_heads: int | None = None
    """Groups of channels that attend to one another; null as the name says."""
    eta: float | None = None
    """First value of LayerScale: 1.0, or 1e-5 with 24 blocks; null as the name says."""
    norm: str = "batch"
    """batch, or group for batches too small for BatchNorm's statistics."""
    drop_rate: float = 0.0
    """Share of the class token's features dropped before the head."""
    attn_drop_rate: float = 0.0
    """Share of attention weights dropped."""
    drop_path_rate: float = 0.0
    """Chance that an image skips a branch of a block; 0.05 in the paper's small models."""

    def __post_init__(self) -> None:
        one_of(self, "norm", NORMS)
        share(self, "drop_rate", "attn_drop_rate", "drop_path_rate")
        at_least(self, 1, "patch_size", "embed_dim", "depth", "cls_attn_layers", "num_heads")
        above(self, 0, "eta")
        if self.checkpoint is None:
            self.resolve()
            return
        own = [name for name in XCIT_SIZES if getattr(self, name) is not None]
        if own:
            raise ValueError(
                f"{own[0]}: {getattr(self, own[0])} with checkpoint: {self.checkpoint}, which has a size of its own; "
                "needs null"
            )

    def resolve(self) -> XCiTArchitecture:
        """The architecture that name and fields describe; a ValueError where there is none."""
        sizes = {name: getattr(self, name) for name in XCIT_SIZES}
        return with_changes(read_name(self.architecture), norm=self.norm, **sizes)


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
class LinearBaseline(Section):
    """A model of scikit-learn on n-grams and numbers, fitted in seconds: the row that every other model should beat."""

    name: ClassVar[str] = "linear_baseline"

    estimator: str = "auto"
    """linear, boosting, or auto: linear where there is a column of free text, gradient boosting elsewhere."""
    max_features: int = 50_000
    """The most frequent words, and as many n-grams of characters, that the linear model keeps per column of text."""
    char_ngrams: bool = True
    """Count character n-grams beside words: slower, and better on short or many-lingual text."""
    strength: float = 1.0
    """Inverse of the linear model's regularisation: higher fits the training rows more closely."""

    def __post_init__(self) -> None:
        one_of(self, "estimator", ESTIMATORS)
        at_least(self, 1, "max_features")
        above(self, 0, "strength")


@dataclass(frozen=True, kw_only=True)
class PixelBaseline(Section):
    """A model of scikit-learn on an image's pixels: the row that everything with an eye for shapes should beat."""

    name: ClassVar[str] = "pixel_baseline"

    estimator: str = "svm_rbf"
    """nearest_neighbours (k = 5), logistic_regression, or svm_rbf."""

    def __post_init__(self) -> None:
        one_of(self, "estimator", PIXEL_ESTIMATORS)


def starts_from_run(section: Section) -> bool:
    """Whether a model's weights and vocabulary are those of another run."""
    checkpoint = getattr(section, "checkpoint", None)
    return isinstance(checkpoint, str) and checkpoint.startswith(RUN_PREFIX)


def _check_head(section: T5FromScratch | T5Pretrained) -> None:
    one_of(section, "head", HEADS)
    share(section, "dropout")
    at_least(section, 1, "num_beams")
    at_least(section, -10, "length_penalty")
    if section.head == "classifier" and section.num_beams > 1:
        raise ValueError(f"num_beams: {section.num_beams} with head classifier, which generates nothing; needs 1")
    if section.head == "classifier" and section.target_pieces_only:
        raise ValueError("target_pieces_only: true with head classifier, which generates nothing; needs false")
