"""Encoders: one protocol, equal vectors on torch and on ONNX Runtime, and no torch where none is needed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from components.search.onnx_encoder import OnnxEncoder
from components.search.onnx_export import export_encoder
from components.search.torch_encoder import TorchEncoder
from components.search.usem3_encoder import Usem3Encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", *"中国经济"]
TEXTS = ["a b c", "中国 经济 a b c d e f g h a b c d", "", "h", "zzz " * 100]


@pytest.fixture(scope="module", params=["gelu", "gelu_new"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, hidden_act=request.param, **sizes)
    model = BertModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_exported_encoder_equals_torch_s_in_any_batch(checkpoint, tmp_path):
    export_encoder(checkpoint, tmp_path / "encoder", name="tiny", max_length=16)
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == [
        "encoder.json", "model.onnx", "tokenizer.json"
    ]  # fmt: skip
    exported, reference = OnnxEncoder(tmp_path / "encoder"), TorchEncoder(checkpoint, name="tiny", max_length=16)
    assert (exported.name, exported.dimension, exported.fingerprint) == ("tiny", 32, reference.fingerprint)
    expected = reference.encode(TEXTS)
    np.testing.assert_allclose(exported.encode(TEXTS), expected, atol=1e-5)
    alone = np.concatenate([exported.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, rtol=1e-5)
    assert exported.encode([]).shape == reference.encode([]).shape == (0, 32)


def test_where_texts_are_cut_is_part_of_the_fingerprint(checkpoint):
    cuts = [TorchEncoder(checkpoint, name="tiny", max_length=length).fingerprint for length in (8, 16)]
    assert cuts[0] != cuts[1]


def test_what_is_no_bert_is_not_exported_and_leaves_nothing(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        export_encoder(tmp_path, tmp_path / "encoder", name="x", max_length=8)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (foreign / name).write_bytes((checkpoint / name).read_bytes())
    config = json.loads((checkpoint / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(config | {"model_type": "mpnet"}))
    with pytest.raises(ValueError, match="mpnet with gelu"):
        export_encoder(foreign, tmp_path / "encoder", name="x", max_length=8)
    (foreign / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"no tensor encoder\.layer\.2"):
        export_encoder(foreign, tmp_path / "encoder", name="x", max_length=8)
    (foreign / "1_Pooling").mkdir()
    (foreign / "1_Pooling/config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    with pytest.raises(ValueError, match="pooling_mode_cls_token is not exported"):
        export_encoder(foreign, tmp_path / "encoder", name="x", max_length=8)
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_a_damaged_export_is_named(checkpoint, tmp_path):
    export_encoder(checkpoint, tmp_path / "encoder", name="tiny", max_length=16)
    (tmp_path / "encoder/model.onnx").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"model\.onnx: unreadable as an ONNX model"):
        OnnxEncoder(tmp_path / "encoder")
    (tmp_path / "encoder/tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json: unreadable"):
        OnnxEncoder(tmp_path / "encoder")


def test_the_multilingual_encoder_puts_translations_beside_each_other():
    encoder = Usem3Encoder()
    vectors = encoder.encode(["今天天气很好", "The weather is nice today", "The bank raised interest rates", ""])
    assert vectors.shape == (4, encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
    assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]
    cut = Usem3Encoder(max_characters=5)
    np.testing.assert_allclose(cut.encode(["hello world"]), cut.encode(["hello"]), atol=1e-6)
    assert cut.fingerprint != encoder.fingerprint


@pytest.mark.parametrize("module", ["searching", "index", "onnx_encoder", "usem3_encoder", "onnx_export", "evaluation"])
def test_search_needs_no_torch(module):
    program = f"import sys, components.search.{module}\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"
