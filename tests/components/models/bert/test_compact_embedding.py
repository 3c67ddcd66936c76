"""Training only the rows that are used: the same steps, a smaller matrix."""

import copy

import pytest
import torch
from bert_references import build_batch

from components.models.bert.checkpoint import BertArchitecture, create_bert, load_bert, save_bert
from components.models.bert.compact_embedding import CompactEmbedding

SMALL = BertArchitecture(
    vocab_size=60, hidden_size=24, num_layers=2, num_heads=3, intermediate_size=40, embedding_size=24
)


def test_adamw_takes_the_steps_of_the_whole_matrix():
    torch.manual_seed(0)
    whole, batch = create_bert(SMALL, num_outputs=3).train(), build_batch(pad_id=0)
    part = copy.deepcopy(whole)
    part.encoder.train_used_rows(batch["input_ids"].unique().tolist())
    for model in (whole, part):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        for seed in range(5):
            torch.manual_seed(seed)
            model(**batch, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    rows = part.encoder.whole_state()["embeddings.word_embeddings.weight"]
    assert torch.equal(rows, whole.encoder.get_input_embeddings().weight)
    assert part.encoder.get_input_embeddings().weight.shape == (len(batch["input_ids"].unique()), 24)


def test_words_that_were_not_trained_keep_their_vectors_in_evaluation():
    weight = torch.arange(12.0).view(6, 2)
    embedding = CompactEmbedding(weight, [4, 1, 1]).eval()
    with torch.no_grad():
        embedding.weight.neg_()
    expected = weight.clone()
    expected[[1, 4]] *= -1
    assert torch.equal(embedding(torch.arange(6)), expected)
    assert torch.equal(embedding.whole_weight(), expected)
    assert sorted(embedding.state_dict()) == ["weight"]


def test_a_word_outside_the_training_texts_is_an_error_in_training():
    with pytest.raises(IndexError):
        CompactEmbedding(torch.zeros(6, 2), [1, 4])(torch.tensor([2]))


def test_the_whole_matrix_is_saved(tmp_path):
    torch.manual_seed(0)
    model, batch = create_bert(SMALL, num_outputs=3), build_batch(pad_id=0)
    model.encoder.train_used_rows(range(5, 20))
    save_bert(model, tmp_path)
    again = load_bert(tmp_path).eval()
    assert again.encoder.get_input_embeddings().weight.shape == (60, 24)
    assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)
