"""Reading and rewriting sentencepiece model files without protobuf.

A process may hold one copy of sentencepiece's protobuf classes: sentencepiece and transformers each ship one, and the
second import fails with "duplicate file name sentencepiece_model.proto". Four kinds of fields are all there is to
read, and whatever is not understood here keeps its bytes.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Piece types (sentencepiece_model.proto, ModelProto.SentencePiece.Type)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM = 1
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

# Field numbers of the messages read here.
_PIECE, _TRAINER, _NORMALIZER, _SELF_TEST = 1, 2, 3, 4
_TEXT, _SCORE, _TYPE = 1, 2, 3
_TRAINER_NUMBERS = {
    "model_type": 3,
    "vocab_size": 4,
    "treat_whitespace_as_suffix": 24,
    "byte_fallback": 35,
    "unk_id": 40,
    "bos_id": 41,
    "eos_id": 42,
    "pad_id": 43,
}
_SPECIAL_TEXTS = {"unk": (45, "<unk>"), "bos": (46, "<s>"), "eos": (47, "</s>"), "pad": (48, "<pad>")}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5

Field = tuple[int, int, bytes]
"""Field number, wire type, and the value's bytes (without the length of what has one)."""


@dataclass(frozen=True)
class Piece:
    """One entry of a vocabulary; its id is its place in the file."""

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class Normalizer:
    """How sentencepiece prepares a text before cutting it; `charsmap` is its compiled replacement table."""

    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


class SentencePieceFile:
    """The content of a model file: its pieces, and the settings that trimming must know."""

    def __init__(self, content: bytes, source: Path) -> None:
        """Raises ValueError when `content` is no sentencepiece model; `source` names it."""
        try:
            self._fields = list(_read_fields(content))
            self.pieces = [_read_piece(value) for number, _, value in self._fields if number == _PIECE]
            self._trainer = list(_read_fields(self._message(_TRAINER)))
            self.normalizer = _read_normalizer(self._message(_NORMALIZER))
        except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{source} is not a sentencepiece model") from error
        if not self.pieces:
            raise ValueError(f"{source} is not a sentencepiece model, or one without pieces")

    @property
    def model_type(self) -> str:
        number = self._setting("model_type", UNIGRAM)
        return MODEL_TYPES.get(number, f"type {number}")

    @property
    def has_byte_fallback(self) -> bool:
        return bool(self._setting("byte_fallback", 0))

    @property
    def has_whitespace_suffix(self) -> bool:
        return bool(self._setting("treat_whitespace_as_suffix", 0))

    def special_text(self, name: str) -> str:
        """The text of the piece "unk", "bos", "eos" or "pad", whether or not the file holds it."""
        number, default = _SPECIAL_TEXTS[name]
        texts = [value for found, _, value in self._trainer if found == number]
        return texts[-1].decode() if texts else default

    def rewritten(self, pieces: list[Piece], **settings: int) -> bytes:
        """The file with these pieces and trainer settings, and everything else as it was.

        The self-test is left out: it holds segmentations by pieces that may be gone, and loading would fail on it.
        """
        settings = {"vocab_size": len(pieces), **settings}
        fields = [(_PIECE, _LENGTH, _written_piece(piece)) for piece in pieces]
        fields.append((_TRAINER, _LENGTH, _with_settings(self._trainer, settings)))
        fields += [field for field in self._fields if field[0] not in (_PIECE, _TRAINER, _SELF_TEST)]
        return _written_fields(fields)

    def _message(self, number: int) -> bytes:
        # Parts of one message may stand apart; protobuf joins them
        return b"".join(value for found, _, value in self._fields if found == number)

    def _setting(self, name: str, default: int) -> int:
        return _last_varint(self._trainer, _TRAINER_NUMBERS[name], default)


def _read_fields(message: bytes) -> Iterator[Field]:
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        start, wire = position, key & 7
        if wire == _VARINT:
            _, end = _read_varint(message, position)
        elif wire == _LENGTH:
            length, start = _read_varint(message, position)
            end = start + length
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            end = start + (8 if wire == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if end > len(message):
            raise ValueError("the message ends inside a field")
        yield key >> 3, wire, message[start:end]
        position = end


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _written_fields(fields: list[Field]) -> bytes:
    parts = []
    for number, wire, value in fields:
        parts.append(_written_varint(number << 3 | wire))
        if wire == _LENGTH:
            parts.append(_written_varint(len(value)))
        parts.append(value)
    return b"".join(parts)


def _written_varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative ids are written as unsigned 64-bit numbers
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_piece(message: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, _, value in _read_fields(message):
        if number == _TEXT:
            text = value.decode()
        elif number == _SCORE:
            (score,) = struct.unpack("<f", value)
        elif number == _TYPE:
            kind, _ = _read_varint(value, 0)
    return Piece(text, score, kind)


def _written_piece(piece: Piece) -> bytes:
    fields = [(_TEXT, _LENGTH, piece.text.encode()), (_SCORE, _FOUR_BYTES, struct.pack("<f", piece.score))]
    if piece.kind != NORMAL:
        fields.append((_TYPE, _VARINT, _written_varint(piece.kind)))
    return _written_fields(fields)


def _read_normalizer(message: bytes) -> Normalizer:
    fields = list(_read_fields(message))
    charsmaps = [value for number, _, value in fields if number == 2]
    add_prefix, remove_spaces, escape = (bool(_last_varint(fields, number, 1)) for number in (3, 4, 5))
    return Normalizer(charsmaps[-1] if charsmaps else b"", add_prefix, remove_spaces, escape)


def _last_varint(fields: list[Field], number: int, default: int) -> int:
    values = [_read_varint(value, 0)[0] for found, _, value in fields if found == number]
    return values[-1] if values else default


def _with_settings(trainer: list[Field], settings: Mapping[str, int]) -> bytes:
    numbers = {_TRAINER_NUMBERS[name]: value for name, value in settings.items()}
    kept = [field for field in trainer if field[0] not in numbers]
    new = [(number, _VARINT, _written_varint(value)) for number, value in numbers.items()]
    return _written_fields(sorted(kept + new, key=lambda field: field[0]))  # protobuf's order
