"""A tokenizer for Chinese: one token a character, built from texts, in the form that BERT's checkpoints have.

Words of other scripts are cut into the pieces that occur often, at the least into letters. Punctuation and symbols say
little of what a text is about and are left out, which saves about a tenth of the tokens.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from components.data.text.tokenizer import TextTokenizer

PAD, UNKNOWN, FIRST = "[PAD]", "[UNK]", "[CLS]"
SPECIAL = (PAD, UNKNOWN, FIRST)
INNER = "##"
LONGEST_WORD = 64
_MARKS = r"[\p{P}\p{S}\p{C}]+"
_LETTERS = re.compile("[0-9a-z]+")


def build_character_tokenizer(texts: Iterable[str], *, size: int, least_count: int = 2) -> TextTokenizer:
    """The `size` most frequent pieces of some texts: characters, whole words of Latin letters and digits, and these.

    A piece occurs at least `least_count` times. Every text begins with [CLS], so that none is empty. Raises ValueError
    for a size that leaves no room for letters and digits.
    """
    counts: Counter[str] = Counter()
    tokenizer = _assemble({piece: index for index, piece in enumerate(SPECIAL)})
    for text in texts:
        counts.update(_words(tokenizer, text))
    always = [*SPECIAL, *_letters()]
    if size <= len(always):
        raise ValueError(f"vocabulary size {size}: {len(always)} pieces are letters, digits and special; needs more")
    known = set(always)
    # By count, then by text: Counter's order among equals is that of the texts
    found = sorted((piece for piece in counts if counts[piece] >= least_count), key=lambda piece: (-counts[piece], piece))
    pieces = [*always, *islice((piece for piece in found if piece not in known), size - len(always))]
    return TextTokenizer(_assemble({piece: index for index, piece in enumerate(pieces)}), PAD)


def _letters() -> Iterator[str]:
    for letter in "0123456789abcdefghijklmnopqrstuvwxyz":
        yield letter
        yield INNER + letter


def _words(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """Han characters each by itself, whole words of Latin letters and digits, and of other scripts the characters."""
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
        if len(word) == 1 or _LETTERS.fullmatch(word):
            yield word
        else:
            yield word[0]
            yield from (INNER + letter for letter in word[1:])


def _assemble(pieces: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(pieces, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(_MARKS), " "),
            # Spaces around each Han character, which makes it a word
            normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A", pair=f"{FIRST} $A $B", special_tokens=[(FIRST, pieces[FIRST])]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
