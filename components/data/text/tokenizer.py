"""The tokenizer that a published encoder came with, WordPiece or another, as fast as `tokenizers` runs it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from components.data.text.tokenizer_json import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE

# In the order in which they are believed.
PAD_SOURCES = (TOKENIZER_CONFIG_FILE, "special_tokens_map.json")
USUAL_PADS = ("[PAD]", "<pad>")
_CHUNK = 4096  # texts; their encodings take some hundred bytes a token


class TokenizedTexts(NamedTuple):
    """Ids of each text, with the closing and parting tokens; of pairs also each token's segment, 0 or 1."""

    ids: list[list[int]]
    type_ids: list[list[int]] | None


class TextTokenizer:
    """Texts, or pairs of them, to ids."""

    def __init__(self, tokenizer: Tokenizer, pad_token: str) -> None:
        pad_id = tokenizer.token_to_id(pad_token)
        if pad_id is None:
            raise ValueError(f"the tokenizer has no padding token {pad_token!r}")
        # Files carry the padding of their last user
        tokenizer.no_padding()
        self.tokenizer, self.pad_token, self.pad_id = tokenizer, pad_token, int(pad_id)

    @property
    def size(self) -> int:
        """Ids, added tokens included."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int) -> TokenizedTexts:
        """At most `max_length` ids a text; of a pair the longer text is cut first."""
        encodings = self._encodings(texts, pairs, max_length)
        types = None if pairs is None else [encoding.type_ids for encoding in encodings]
        return TokenizedTexts([encoding.ids for encoding in encodings], types)

    def count_cut(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int) -> int:
        """How many texts, or pairs, lose tokens in `max_length` ids."""
        count = 0
        for start in range(0, len(texts), _CHUNK):
            part = slice(start, start + _CHUNK)
            encodings = self._encodings(texts[part], None if pairs is None else pairs[part], max_length)
            count += sum(bool(encoding.overflowing) for encoding in encodings)
        return count

    def _encodings(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> list[Encoding]:
        least = self.tokenizer.num_special_tokens_to_add(pairs is not None) + 1
        if max_length < least:
            raise ValueError(f"max_length={max_length} leaves no room for text; use at least {least}")
        self.tokenizer.enable_truncation(max_length, strategy="longest_first")
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return list(self.tokenizer.encode_batch(inputs))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers reads as well."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.no_truncation()
        self.tokenizer.save(str(folder / TOKENIZER_FILE))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": self.pad_token}
        (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a checkpoint's folder: `tokenizer.json`, or what transformers makes of older files.

    Raises ValueError where there is none.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return TextTokenizer(_convert(folder), _pad_token(folder))
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path}: cannot be read ({error}); download it again") from error
    return TextTokenizer(tokenizer, _pad_token(folder, tokenizer))


def _convert(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # a second, which a folder with tokenizer.json does without

    try:
        return AutoTokenizer.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # as many types as there are tokenizers
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{folder}: no {TOKENIZER_FILE}, and transformers makes none of the other files "
            f"({type(error).__name__}: {reason[0] if reason else 'no message'})"
        ) from error


def _pad_token(folder: Path, tokenizer: Tokenizer | None = None) -> str:
    for name in PAD_SOURCES:
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text(encoding="utf-8")).get("pad_token")
            if said:
                return str(said["content"] if isinstance(said, dict) else said)
    known = [token for token in USUAL_PADS if tokenizer is None or tokenizer.token_to_id(token) is not None]
    if not known:
        raise ValueError(f"{folder}: says no padding token, and the tokenizer has none of {', '.join(USUAL_PADS)}")
    return known[0]
