"""How rows become examples."""

from dataclasses import dataclass
from typing import ClassVar

from pipelines.config.checks import at_least, one_of, shown
from pipelines.config.sections.section import Section

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
class Table(Section):
    """The input columns as they are, for models that make their own features."""

    name: ClassVar[str] = "table"
