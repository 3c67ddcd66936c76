"""The biases of T5's attention lie as CUDA's fused attention needs them: the keys of a query side by side.

Its kernels refuse a bias whose last stride is not 1, and torch then takes plain products without a word.
"""

import hashlib

import pytest
import torch
from torch.nn import functional

from components.models.t5 import layers as t5_layers
from components.models.t5.checkpoint import T5Architecture, create_t5

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}


def build(head="seq2seq", **more):
    torch.manual_seed(0)
    return create_t5(T5Architecture(vocab_size=50, **SIZES), head=head, **more)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("length", [2, 64, 65])
def test_a_position_bias_is_contiguous_with_the_plain_values(stack, length):
    stack = getattr(build(), stack)
    bias = stack.position_bias(length)
    weight = stack.block[0].self_attention.relative_attention_bias.weight
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    bucket = t5_layers.relative_position_bucket(
        distance, bidirectional=not stack.is_decoder, num_buckets=32, max_distance=128
    )
    expected = functional.embedding(bucket, weight).permute(2, 0, 1).unsqueeze(0)
    if stack.is_decoder:
        expected = expected.masked_fill(distance > 0, t5_layers.MASKED)
    assert bias.stride(-1) == 1
    assert bias.is_contiguous()
    assert torch.equal(bias, expected)


@pytest.mark.parametrize("head", ["seq2seq", "classifier"])
@pytest.mark.parametrize("is_padded", [False, True], ids=["whole", "padded"])
def test_every_attention_of_a_step_and_of_decoding_gets_such_a_bias(head, is_padded, monkeypatch):
    """As on an accelerator, where masks are always joined to the biases and torch's own attention is called."""
    monkeypatch.setattr(t5_layers, "is_hand_written", lambda tensor: False)
    seen = []
    attention = functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **rest):
        if attn_mask is not None:
            seen.append(attn_mask)
        return attention(query, key, value, attn_mask, **rest)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    model = build(head, **({"num_classes": 3} if head == "classifier" else {}))
    ids, mask = torch.randint(2, 50, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    if is_padded:
        mask[0, 5:] = 0
    labels = torch.tensor([0, 2, 1]) if head == "classifier" else ids[:, :7]
    model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    if head == "seq2seq":
        with torch.inference_mode():
            state = model.start_decoding(ids, mask, max_length=4)
            for _ in range(4):
                model.decode_step(torch.zeros(3, dtype=torch.long), state)
    # Two layers of the encoder, and two of the decoder that attend to themselves and to the encoder
    assert len(seen) >= 6
    assert [bias.shape for bias in seen if bias.shape[-1] > 1 and bias.stride(-1) != 1] == []


def test_a_training_on_a_cpu_has_the_bits_of_a_bias_with_its_heads_last(monkeypatch):
    def digest():
        torch.manual_seed(1)
        model = build()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            ids, mask = torch.randint(2, 50, (4, 11)), torch.ones(4, 11, dtype=torch.long)
            mask[1, 7:] = 0
            model(input_ids=ids, attention_mask=mask, labels=ids[:, :6]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tensors = model.state_dict().values()
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()

    copied = digest()
    original = t5_layers.T5Stack.position_bias

    def heads_last(stack, length):
        return original(stack, length).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    monkeypatch.setattr(t5_layers.T5Stack, "position_bias", heads_last)
    assert digest() == copied
