"""A published vocabulary cut down to a corpus, and the way back.

Of mT5-small's 300 M parameters 256 M are rows for 250,112 pieces, of which a competition uses a few thousand. Here the
sentencepiece file loses the pieces its corpus never needs; `components.models.t5.trimming` cuts the matrices to match.

The corpus is cut into the same pieces as before, ties included: a unigram model takes the best path through all pieces
that match, and the best of many stays the best of fewer, the first of equals the first. Two things keep that exact.
What an unknown character costs is reckoned from the lowest score in the file, so the piece with that score stays. And
a character must not become unknown that was not, so each one the corpus uses keeps its own piece; that also spells new
words of a known script in characters rather than bytes. (Subword sampling does see fewer pieces.)
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from components.data.text.sentencepiece_file import BYTE, CONTROL, NORMAL, UNUSED, Piece, SentencePieceFile
from components.data.text.tokenizer_json import build_tokenizer_files
from components.data.text.vocabulary import (
    EOS_ID,
    PAD_ID,
    UNK_ID,
    VOCABULARY_FILE,
    Vocabulary,
    find_vocabulary_file,
    write_atomically,
)

KEPT_IDS_FILE = "kept_ids.json"
NO_OLD_ID = -1
_BYTE_TEXTS = [f"<0x{value:02X}>" for value in range(256)]
_UNKNOWN_PENALTY = 10.0  # kUnkPenalty in sentencepiece's unigram_model.cc
_CHUNK = 4096  # texts; sentencepiece returns lists, of some hundred bytes a token


@dataclass(frozen=True)
class TrimmingReport:
    """What trimming did. Texts are distinct ones, and every one was encoded with both files and compared."""

    num_pieces_before: int
    num_pieces_after: int
    num_added: int
    """Of these after: padding, byte and character pieces that the old file lacked."""
    num_texts: int
    num_texts_with_unknowns: int
    """Texts that the old file could not spell; the new one can."""
    num_tokens_before: int
    """Of all texts, without ends of sequence; a run of unknown characters was one token."""
    num_tokens_after: int

    @property
    def share_removed(self) -> float:
        """Of the vocabulary, in [0, 1]."""
        return 1 - self.num_pieces_after / self.num_pieces_before

    def bytes_saved(
        self, *, d_model: int, is_tied: bool, bytes_per_weight: int = 4, num_rows_before: int | None = None
    ) -> int:
        """Bytes of embedding and, unless tied, head that are gone; its gradients and optimizer states come on top.

        `num_rows_before` is the old matrices' height where it is not the number of pieces (mT5: 250,112 for 250,100).
        """
        rows = (num_rows_before or self.num_pieces_before) - self.num_pieces_after
        return rows * d_model * bytes_per_weight * (1 if is_tied else 2)


@dataclass(frozen=True)
class TrimmedVocabulary:
    """The vocabulary that `trim_vocabulary` wrote, with the old id of each piece (NO_OLD_ID for an added one)."""

    vocabulary: Vocabulary
    kept_ids: tuple[int, ...]
    report: TrimmingReport


def trim_vocabulary(
    source: Path, texts: Iterable[str], folder: Path, *, keep: Iterable[str] = (), add_characters: bool = False
) -> TrimmedVocabulary:
    """Write into `folder` the vocabulary of `source` (a file, or a folder holding one) cut down to `texts`.

    `texts` is everything that training and prediction encode: train and test, inputs and targets. Kept are the reserved
    pieces (control, unknown, user-defined, bytes), those the texts use, the single characters of these, and the pieces
    in `keep`, in their old order. The result has T5's layout: a file with another one is re-ordered to padding, end,
    unknown, and where it has no byte pieces they are added, so that no text is ever unknown.

    A character of the texts that the file lacks is spelled in bytes, two to four tokens; with `add_characters` it gets
    a piece of its own behind the others, scored as sentencepiece scores the unknown, so that nothing else is cut
    otherwise. For a model trained from scratch that is the better choice, for a published one its byte rows are.

    Writes `spiece.model`, `kept_ids.json` (the old id of each new id, -1 for none), and `tokenizer.json` with
    `tokenizer_config.json`, from which transformers' AutoTokenizer loads. Raises ValueError for a file that is no
    unigram model, a piece in `keep` that it lacks, or texts of which none has content; RuntimeError should a text be
    encoded otherwise than before (nothing is written then).
    """
    file = find_vocabulary_file(source)
    if file.resolve() == (folder / VOCABULARY_FILE).resolve():
        raise ValueError(f"{folder} holds the vocabulary to be trimmed; write into another folder")
    content = file.read_bytes()
    old = SentencePieceFile(content, file)
    _check_model(old, file)
    old_processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    distinct = list(dict.fromkeys(texts))
    used = {piece for _, ids in _encoded(old_processor, distinct) for row in ids for piece in row}
    if not used:
        raise ValueError("a vocabulary cannot be trimmed to an empty corpus; hand in the train and test texts")
    kept_ids, pieces = _laid_out(old, _kept(old, used, keep, file), file)
    if add_characters:
        pieces += _new_characters(old, old_processor, distinct)
        kept_ids += (NO_OLD_ID,) * (len(pieces) - len(kept_ids))
    trimmed = _written(old, pieces)
    tokenizer_files = build_tokenizer_files(SentencePieceFile(trimmed, file))
    report = _checked(old_processor, trimmed, kept_ids, _spellings(old, pieces, kept_ids), distinct)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**tokenizer_files, KEPT_IDS_FILE: json.dumps(kept_ids)}.items():
        write_atomically(folder / name, f"{text}\n".encode())
    write_atomically(folder / VOCABULARY_FILE, trimmed)
    return TrimmedVocabulary(Vocabulary(folder / VOCABULARY_FILE), kept_ids, report)


def read_kept_ids(folder: Path) -> tuple[int, ...]:
    """The old id of each new id, as `trim_vocabulary` wrote it; raises ValueError when the file is no list of ids."""
    file = folder / KEPT_IDS_FILE
    kept_ids = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(kept_ids, list) or not all(type(old) is int and old >= NO_OLD_ID for old in kept_ids):
        raise ValueError(f"{file}: must be a list of ids, {NO_OLD_ID} for a piece without an old one")
    return tuple(kept_ids)


def to_old_ids(ids: Iterable[int], kept_ids: Sequence[int], *, missing: int | None = None) -> list[int]:
    """New ids as ids of the untrimmed vocabulary; an added piece becomes `missing`, or is refused with ValueError."""
    olds = dict(enumerate(kept_ids))
    return [_mapped(new, olds.get(new, NO_OLD_ID), missing, "old") for new in ids]


def to_new_ids(ids: Iterable[int], kept_ids: Sequence[int], *, missing: int | None = None) -> list[int]:
    """Ids of the untrimmed vocabulary as new ids; a removed piece becomes `missing`, or is refused with ValueError."""
    places = {old: new for new, old in enumerate(kept_ids) if old != NO_OLD_ID}
    return [_mapped(old, places.get(old, NO_OLD_ID), missing, "new") for old in ids]


def _mapped(value: int, counterpart: int, missing: int | None, which: str) -> int:
    if counterpart != NO_OLD_ID:
        return counterpart
    if missing is None:
        raise ValueError(f"id {value} has no {which} id; say with `missing` what shall stand for it")
    return missing


def _check_model(old: SentencePieceFile, file: Path) -> None:
    if old.model_type != "unigram":
        raise ValueError(
            f"{file} is a {old.model_type} model; only unigram models can be trimmed: in others a piece is also a step "
            "on the way to longer ones, and texts would be cut otherwise"
        )
    if old.has_whitespace_suffix:
        raise ValueError(f"{file} puts spaces behind words (treat_whitespace_as_suffix), which T5's tokenizers do not")


def _kept(old: SentencePieceFile, used: set[int], keep: Iterable[str], file: Path) -> set[int]:
    """The old ids that stay."""
    ids = {piece.text: index for index, piece in enumerate(old.pieces)}
    wanted = list(keep)
    if absent := [text for text in wanted if text not in ids]:
        raise ValueError(f"keep: {file} has no piece {', '.join(map(repr, absent[:8]))}; a space is written U+2581")
    normal = [index for index, piece in enumerate(old.pieces) if piece.kind == NORMAL]
    reserved = {index for index, piece in enumerate(old.pieces) if piece.kind not in (NORMAL, UNUSED)}
    characters = {character for index in used for character in old.pieces[index].text}
    singles = {ids[character] for character in characters if character in ids}
    # What unknown (lowest) and user-defined (highest) pieces are weighed by
    extremes = {choose(normal, key=lambda index: old.pieces[index].score) for choose in (min, max)}
    return reserved | used | singles | extremes | {ids[text] for text in wanted}


def _laid_out(old: SentencePieceFile, kept: set[int], file: Path) -> tuple[tuple[int, ...], list[Piece]]:
    """Old ids and pieces in their new order."""
    ids = {piece.text: index for index, piece in enumerate(old.pieces)}
    front = [(ids.get(text, NO_OLD_ID), Piece(text, 0.0, CONTROL)) for text in map(old.special_text, ("pad", "eos"))]
    front.append((ids[old.special_text("unk")], old.pieces[ids[old.special_text("unk")]]))
    if not old.has_byte_fallback:
        front += [(ids.get(text, NO_OLD_ID), Piece(text, 0.0, BYTE)) for text in _BYTE_TEXTS]
    for index, piece in front:
        if index != NO_OLD_ID and old.pieces[index].kind != piece.kind:
            raise ValueError(f"{file}: {piece.text} is an ordinary piece there, so it cannot serve T5's layout")
    moved = {index for index, _ in front}
    order = [*front, *((index, old.pieces[index]) for index in sorted(kept - moved))]
    return tuple(index for index, _ in order), [piece for _, piece in order]


def _written(old: SentencePieceFile, pieces: list[Piece]) -> bytes:
    texts = {piece.text: index for index, piece in enumerate(pieces)}
    return old.rewritten(
        pieces,
        byte_fallback=1,
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        bos_id=texts.get(old.special_text("bos"), -1),
    )


def _encoded(
    processor: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> Iterator[tuple[list[str], list[list[int]]]]:
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        yield chunk, processor.encode(chunk)


def _new_characters(
    old: SentencePieceFile, processor: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> list[Piece]:
    """Pieces for the characters of the normalised texts that have none, in the order of their code points."""
    present = {piece.text for piece in old.pieces} | {"\0"}
    characters = {character for text in processor.normalize(texts) for character in text} - present
    lowest = min(piece.score for piece in old.pieces if piece.kind == NORMAL)
    return [Piece(character, lowest - _UNKNOWN_PENALTY) for character in sorted(characters)]


def _spellings(old: SentencePieceFile, pieces: list[Piece], kept_ids: tuple[int, ...]) -> list[list[int]]:
    """For each new piece the old ids that say the same: its own, its bytes', or the unknown one."""
    ids = {piece.text: index for index, piece in enumerate(old.pieces)}
    unknown = [ids[old.special_text("unk")]]
    spellings = []
    for piece, index in zip(pieces, kept_ids, strict=True):
        if index != NO_OLD_ID:
            spellings.append([index])
        elif old.has_byte_fallback:
            spellings.append([ids[_BYTE_TEXTS[value]] for value in piece.text.encode()])
        else:
            spellings.append(unknown)
    return spellings


def _checked(
    old: sentencepiece.SentencePieceProcessor,
    trimmed: bytes,
    kept_ids: tuple[int, ...],
    spellings: list[list[int]],
    texts: list[str],
) -> TrimmingReport:
    """Encode and decode every text with both files; the report, or RuntimeError."""
    new = sentencepiece.SentencePieceProcessor(model_proto=trimmed)
    unknown = old.unk_id()
    before = after = num_with_unknowns = 0
    for chunk, old_rows in _encoded(old, texts):
        new_rows = new.encode(chunk)
        decoded = zip(old.decode(old_rows), new.decode(new_rows), strict=True)
        for text, old_ids, new_ids, (old_text, new_text) in zip(chunk, old_rows, new_rows, decoded, strict=True):
            has_unknown = unknown in old_ids
            is_same = UNK_ID not in new_ids and _as_old(new_ids, spellings, unknown) == old_ids
            if not is_same or (old_text != new_text and not has_unknown):
                raise RuntimeError(f"trimming would encode {text!r} as {new.id_to_piece(new_ids)}; please report this")
            before, after = before + len(old_ids), after + len(new_ids)
            num_with_unknowns += has_unknown
    return TrimmingReport(
        num_pieces_before=old.get_piece_size(),
        num_pieces_after=len(kept_ids),
        num_added=kept_ids.count(NO_OLD_ID),
        num_texts=len(texts),
        num_texts_with_unknowns=num_with_unknowns,
        num_tokens_before=before,
        num_tokens_after=after,
    )


def _as_old(ids: list[int], spellings: list[list[int]], unknown: int) -> list[int]:
    """New ids as the old file has them, where a run of unknown characters is one id."""
    old = [value for new in ids for value in spellings[new]]
    return [value for place, value in enumerate(old) if value != unknown or place == 0 or old[place - 1] != unknown]
