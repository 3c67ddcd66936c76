"""Text to ids and back, over sentencepiece: vocabularies trained on a competition's own corpus, or the file a published
model came with. Ids follow T5's order everywhere: pad 0, end of sequence 1, unknown 2, no beginning of sequence.
"""

import io
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

VOCABULARY_FILE = "spiece.model"
# The names under which published models ship their sentencepiece file, the likelier first.
KNOWN_FILES = (VOCABULARY_FILE, "sentencepiece.bpe.model", "tokenizer.model")

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2

# Per kind of vocabulary, what differs in sentencepiece's trainer.
# - unigram, bpe: rare characters fall back to 256 byte pieces, so nothing is ever unknown; like T5's they put a space
#   before the text, so that a word is cut alike at the start and in the middle.
# - character, word: the alphabet is the point, so no byte pieces, and `size` is only an upper bound. Characters need no
#   space in front (it would cost one id a text); words do, or the first word would be another piece than the rest.
_KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram", "byte_fallback": True, "add_dummy_prefix": True},
    "bpe": {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": True},
    "character": {"model_type": "char", "character_coverage": 1.0, "add_dummy_prefix": False},
    "word": {"model_type": "word", "character_coverage": 1.0, "hard_vocab_limit": False},
}
VOCABULARY_KINDS = tuple(_KINDS)


class Vocabulary:
    """A trained sentencepiece model with T5's reading of its ids.

    `decode(encode(texts)) == texts` for vocabularies of `build_vocabulary`, except where a text holds something the
    vocabulary cannot spell: a character ("character") or word ("word") never seen, or the literal U+2581, which is how
    sentencepiece writes a space.
    """

    def __init__(self, model_file: Path) -> None:
        """Raises FileNotFoundError without the file, ValueError when it is no usable sentencepiece model."""
        self._processor = _load_processor(model_file.read_bytes(), model_file)
        self.size: int = self._processor.get_piece_size()
        self.pad_id: int = self._processor.pad_id()
        self.eos_id: int = self._processor.eos_id()
        self.unk_id: int = self._processor.unk_id()

    def encode(self, texts: Sequence[str], *, max_length: int | None = None, add_eos: bool = True) -> list[list[int]]:
        """Ids of each text, at most `max_length` of them; a text that is cut keeps its end of sequence."""
        end = [self.eos_id] if add_eos else []
        if max_length is not None and max_length < 1 + len(end):
            raise ValueError(f"max_length={max_length} leaves no room for text; use at least {1 + len(end)}")
        room = None if max_length is None else max_length - len(end)
        return [[*ids[:room], *end] for ids in self._processor.encode(list(texts))]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row: what stands before the first end of sequence, without padding.

        Ids at or above `size` are dropped: models round their embedding up (mT5 has 250,112 rows for 250,100 pieces).
        """
        return [self._processor.decode(self._text_ids(row)) for row in ids]

    def save(self, folder: Path) -> None:
        """Write `folder/spiece.model`; the bytes are those of the file this vocabulary was read from."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / VOCABULARY_FILE, self._processor.serialized_model_proto())

    def _text_ids(self, row: Sequence[int]) -> list[int]:
        kept: list[int] = []
        for value in row:
            if value == self.eos_id:
                break
            if value != self.pad_id and 0 <= value < self.size:
                kept.append(int(value))
        return kept


def load_vocabulary(folder_or_file: Path) -> Vocabulary:
    """The vocabulary in a file, or in a folder under one of the names published models use.

    Raises FileNotFoundError naming what was looked for, ValueError for a file that cannot serve.
    """
    return Vocabulary(find_vocabulary_file(folder_or_file))


def find_vocabulary_file(folder_or_file: Path) -> Path:
    """The file itself, or the one in a folder; raises FileNotFoundError naming what was looked for."""
    if folder_or_file.is_file():
        return folder_or_file
    for name in KNOWN_FILES:
        if (folder_or_file / name).is_file():
            return folder_or_file / name
    raise FileNotFoundError(f"{folder_or_file}: no vocabulary here; looked for {', '.join(KNOWN_FILES)}")


def build_vocabulary(
    corpus: Iterable[str], folder: Path, *, kind: str, size: int, reserved: Sequence[str] = ()
) -> Vocabulary:
    """Train a vocabulary on `corpus` and write it to `folder/spiece.model`.

    The same corpus in the same order gives the same bytes: one thread, no shuffling, no sampling. The text is taken as
    it is, without Unicode normalisation or squeezing of spaces, because targets must come back exactly.

    `size` counts everything, the `reserved` pieces (never cut, such as ">>uk<<") and 256 byte pieces included. It is
    exact for "unigram" and "bpe", an upper bound for "character" and "word". Raises ValueError for a size the corpus
    cannot fill or that cannot hold its characters.
    """
    if kind not in _KINDS:
        raise ValueError(f"vocabulary kind {kind!r} is unknown; use one of {', '.join(_KINDS)}")
    lines = [text for text in corpus if text]
    if not lines:
        raise ValueError("a vocabulary cannot be trained on an empty corpus")
    folder.mkdir(parents=True, exist_ok=True)
    model_file = folder / VOCABULARY_FILE
    write_atomically(model_file, _train(lines, kind, size, reserved))
    return Vocabulary(model_file)


def _train(lines: list[str], kind: str, size: int, reserved: Sequence[str]) -> bytes:
    model = io.BytesIO()
    # Words carry their space in front, reserved ones too; else the same symbol would hold two ids.
    symbols = [f"\u2581{piece}" for piece in reserved] if kind == "word" else list(reserved)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            user_defined_symbols=symbols,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            # Longer lines would be skipped without a word; the default is 4,192 bytes.
            max_sentence_length=1 << 20,
            num_threads=1,
            shuffle_input_sentence=False,
            input_sentence_size=0,
            minloglevel=2,
            **_KINDS[kind],
        )
    except RuntimeError as error:
        raise _size_error(str(error), kind, size) from error
    return model.getvalue()


def _size_error(message: str, kind: str, size: int) -> ValueError:
    """sentencepiece's complaint about a size, in our words; any other complaint as it is."""
    if too_high := re.search(r"too high .* value <= (\d+)", message):
        return ValueError(f"vocabulary size {size} is more than this corpus fills; use at most {too_high[1]}")
    if too_low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ValueError(f"vocabulary size {size} cannot hold the corpus's characters; use at least {too_low[1]}")
    return ValueError(f"sentencepiece could not train a {kind} vocabulary of size {size}: {message}")


def _load_processor(model: bytes, source: Path) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise ValueError(f"{source} is not a sentencepiece model") from error
    if processor.pad_id() < 0 or processor.eos_id() < 0:
        # XLM-R's and Llama's files: their models shift ids or borrow a padding id in ways the file does not say.
        raise ValueError(
            f"{source} has no padding or no end-of-sequence piece; only T5's layout (T5, mT5) is supported"
        )
    return processor


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or as it was; its folder must exist."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
