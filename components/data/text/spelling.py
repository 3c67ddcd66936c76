"""Whether a vocabulary can write a text: what comes back when a text is encoded and decoded again."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.data.text.vocabulary import Vocabulary

_CHUNK = 4096  # texts; their ids take some hundred bytes a token


@dataclass(frozen=True)
class Misspelling:
    """A text, what comes back of it, and whether the vocabulary lacks a part of it or only changes it, as NFKC does."""

    text: str
    back: str
    has_unknown: bool


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """Of `num_rows` texts: how many come back changed, how many are too long, and the first of each in their order."""

    num_rows: int
    num_unspellable: int
    """What comes back is another text."""
    num_cut: int
    """Longer than the limit, so that their end is lost."""
    num_unwritable: int
    """Unspellable or cut."""
    longest: int
    """Ids of the longest text, the closing one included."""
    misspelling: Misspelling | None
    cut: str | None


def check_spelling(
    vocabulary: Vocabulary, texts: Sequence[str], *, max_length: int, is_same: Callable[[str, str], bool]
) -> Spelling:
    """What becomes of each text in at most `max_length` ids; `is_same(text, back)` says whether a difference counts."""
    counts = Counter(texts)
    distinct = list(counts)
    rows = vocabulary.encode(distinct)
    backs = vocabulary.decode(rows)
    misspellings: dict[str, Misspelling] = {}
    for text, ids, back in zip(distinct, rows, backs, strict=True):
        if back != text and not is_same(text, back):
            misspellings[text] = Misspelling(text, back, vocabulary.unk_id in ids)
    cut = [text for text, ids in zip(distinct, rows, strict=True) if len(ids) > max_length]
    return Spelling(
        num_rows=len(texts),
        num_unspellable=sum(counts[text] for text in misspellings),
        num_cut=sum(counts[text] for text in cut),
        num_unwritable=sum(counts[text] for text in misspellings.keys() | set(cut)),
        longest=max(map(len, rows), default=0),
        misspelling=next(iter(misspellings.values()), None),
        cut=cut[0] if cut else None,
    )


def count_cut(vocabulary: Vocabulary, texts: Sequence[str], *, max_length: int) -> int:
    """How many texts have more than `max_length` ids, the closing one included."""
    chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
    return sum(len(ids) > max_length for chunk in chunks for ids in vocabulary.encode(chunk))
