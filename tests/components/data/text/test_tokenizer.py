"""Tokenizers of published encoders: their ids, cut and in pairs, and files that transformers reads too."""

import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizer

from components.data.text.tokenizer import load_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sat", "##s", "mat", "on", "the"]


@pytest.fixture
def folder(tmp_path):
    """A WordPiece tokenizer as a hub folder has it, with the padding and cutting of whoever saved it."""
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_texts_keep_their_ends_when_they_are_cut(folder):
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.pad_id, tokenizer.size) == (0, 11)
    texts = tokenizer.encode(["A cat sat on the mats", "dog"], max_length=32)
    assert texts.ids == [[2, 4, 5, 6, 9, 10, 8, 7, 3], [2, 1, 3]]
    assert texts.type_ids is None
    assert tokenizer.encode(["A cat sat on the mats"], max_length=4).ids == [[2, 4, 5, 3]]
    with pytest.raises(ValueError, match="max_length=2 leaves no room for text; use at least 3"):
        tokenizer.encode(["a"], max_length=2)


def test_of_a_pair_the_longer_text_is_cut_first(folder):
    pairs = load_tokenizer(folder).encode(["a cat"], ["the cat sat on the mat"], max_length=8)
    assert pairs.ids == [[2, 4, 5, 3, 10, 5, 6, 3]]
    assert pairs.type_ids == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_what_is_saved_reads_the_same_here_and_in_transformers(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    expected = tokenizer.encode(["the cats"], max_length=4).ids
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(["the cats"], max_length=4).ids == expected
    theirs = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs(["the cats"], truncation=True, max_length=4)["input_ids"] == expected
    assert theirs.pad_token_id == 0


def test_a_folder_without_tokenizer_json_goes_through_transformers(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "vocab.txt").write_text("\n".join([*WORDS, "[MASK]"]) + "\n")
    (old / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (old / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}))
    texts, pairs = ["A cat sat!", "mats"], ["the mat", "on"]
    read = load_tokenizer(old).encode(texts, pairs, max_length=16)
    theirs = BertTokenizer.from_pretrained(old)(texts, pairs)
    assert (read.ids, read.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])
    with pytest.raises(ValueError, match=r"no tokenizer\.json, and transformers makes none of the other files"):
        load_tokenizer(tmp_path / "nowhere")
