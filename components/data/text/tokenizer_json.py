"""A sentencepiece unigram model as the `tokenizer.json` that transformers reads, giving the same ids.

transformers' own reading of the file (T5Tokenizer) leaves out byte pieces, so that a new character is unknown to it,
and weighs user-defined pieces wrongly. AutoTokenizer takes what stands here as it is.
"""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import Unigram

from components.data.text.sentencepiece_file import CONTROL, USER_DEFINED, Piece, SentencePieceFile

TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPACE = "\u2581"


def build_tokenizer_files(model: SentencePieceFile) -> dict[str, str]:
    """The two files' content by their names, for a unigram model in T5's layout (padding 0, end 1, unknown 2).

    Ids equal sentencepiece's but for two things the format cannot say: a text that spells a control or byte piece
    ("</s>", "<0x41>") is taken for it, and some combining marks after unusual letters are normalised with them.
    """
    pad, eos, unk = (piece.text for piece in model.pieces[:3])
    config = {
        # The name under which every transformers 5 takes tokenizer.json as it is
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "eos_token": eos,
        "unk_token": unk,
        "extra_ids": 0,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    return {
        TOKENIZER_FILE: _build_tokenizer(model).to_str(),
        TOKENIZER_CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True),
    }


def _build_tokenizer(model: SentencePieceFile) -> Tokenizer:
    eos_text = model.pieces[1].text
    scores = [(piece.text, _score(piece, model)) for piece in model.pieces]
    tokenizer = Tokenizer(Unigram(scores, unk_id=2, byte_fallback=model.has_byte_fallback))
    tokenizer.add_special_tokens(
        [AddedToken(p.text, normalized=False, special=True) for p in model.pieces if p.kind == CONTROL]
    )
    tokenizer.normalizer = _build_normalizer(model)
    # No pre-tokenizer: a piece may hold several words
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos_text}", pair=f"$A {eos_text} $B {eos_text}", special_tokens=[(eos_text, 1)]
    )
    stages = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.normalizer.add_dummy_prefix:
        stages.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(stages)
    return tokenizer


def _build_normalizer(model: SentencePieceFile) -> normalizers.Normalizer:
    stages: list[normalizers.Normalizer] = []
    if model.normalizer.charsmap:
        stages.append(normalizers.Precompiled(model.normalizer.charsmap))
    if model.normalizer.remove_extra_whitespaces:
        stages += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.normalizer.add_dummy_prefix:
        stages.append(normalizers.Prepend(SPACE))
    stages.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(stages)


def _score(piece: Piece, model: SentencePieceFile) -> float:
    if piece.kind != USER_DEFINED:
        return piece.score
    # sentencepiece's bonus, by which these are always taken (unigram_model.cc, EncodeOptimized)
    greatest = max((other.score for other in model.pieces if other.kind == 1), default=0.0)
    return len(piece.text.encode()) * max(greatest, 0.0) - 0.1
