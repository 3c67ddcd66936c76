"""What a T5 with a large vocabulary holds while it trains, to the byte; and what a batch without labels costs."""

from dataclasses import replace

import pytest
import torch

from components.memory import host_memory
from components.memory.measuring import peak_bytes, saved_bytes
from components.models.t5.checkpoint import T5Architecture, create_t5

WIDTH = 24
ARCHITECTURE = T5Architecture(
    vocab_size=40, d_model=WIDTH, d_kv=6, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=3
)


def build_batch():
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(3, 40, (4, 17), generator=generator)
    labels = torch.randint(3, 40, (4, 9), generator=generator)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_kept_for_backward_does_not_grow_with_the_vocabulary(tied):
    """Whatever keeps it, the head's gradient apart, which is made in the forward pass and as large as its weight."""
    kept = []
    for pieces in (1000, 10_000):
        architecture = replace(ARCHITECTURE, vocab_size=pieces, tie_embeddings=tied)
        model, batch = create_t5(architecture, head="seq2seq"), build_batch()
        model(**batch)
        kept.append(saved_bytes(lambda model=model, batch=batch: model(**batch).loss) - pieces * WIDTH * 4)
    assert kept[0] == kept[1]


def test_a_tied_vocabulary_has_one_gradient():
    """transformers makes one for the lookup and one for the head, each as large as the vocabulary, and adds them up."""
    peaks = {}
    for pieces in (20_000, 40_000):
        architecture = replace(ARCHITECTURE, vocab_size=pieces, tie_embeddings=True)
        model, batch = create_t5(architecture, head="seq2seq"), build_batch()
        model(**batch).loss.backward()

        def step(model=model, batch=batch):
            model.zero_grad(set_to_none=True)
            model(**batch).loss.backward()

        model.zero_grad(set_to_none=True)
        peaks[pieces] = peak_bytes(step)
    gradient, logits = WIDTH * 4, 36 * 4  # bytes per piece; so small a batch is one chunk
    assert peaks[40_000] - peaks[20_000] <= 20_000 * (gradient + logits)


@pytest.mark.parametrize(("least", "tied", "times"), [(0, False, 1), (0, True, 0), (1 << 20, False, 0)])
def test_freed_memory_goes_back_before_a_large_embeddings_gradient(least, tied, times, monkeypatch):
    """Tied, the gradient is the head's, which is there from the forward pass on."""
    model, batch = create_t5(replace(ARCHITECTURE, tie_embeddings=tied), head="seq2seq"), build_batch()
    gradients_then = []
    monkeypatch.setattr(host_memory, "_LARGE_EMBEDDING", least)
    monkeypatch.setattr(host_memory, "give_back_memory", lambda: gradients_then.append(model.shared.weight.grad))
    host_memory.give_back_before_gradients(model)
    model(**batch).loss.backward()
    assert gradients_then == [None] * times
    assert model.shared.weight.grad is not None


def test_a_batch_without_labels_costs_nothing():
    """torch's mean over no label is NaN, and so is NaN times the weight of 0 that such a batch has in its step."""
    model, batch = create_t5(ARCHITECTURE, head="seq2seq"), build_batch()
    batch["labels"].fill_(-100)
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(parameter.grad.abs().sum() == 0.0 for parameter in model.parameters())
