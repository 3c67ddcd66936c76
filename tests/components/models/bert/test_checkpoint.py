"""Our encoder against transformers': hidden states, gradients, files both ways, heads."""

import json

import pytest
import torch
from bert_references import FOREIGN, KINDS, LENGTHS, build_batch, build_reference
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from components.memory.checkpointing import apply_plan
from components.memory.plans import parse_plan
from components.models.bert import layers as bert_layers
from components.models.bert.checkpoint import (
    BertArchitecture,
    BertEncoder,
    HubEncoder,
    create_bert,
    load_bert,
    load_encoder,
    save_bert,
)
from components.models.bert.pooling import POOLINGS
from components.models.shared import dropout, token_rows

SMALL = BertArchitecture(
    vocab_size=60, hidden_size=24, num_layers=3, num_heads=3, intermediate_size=40, embedding_size=24
)


@pytest.fixture(params=sorted(KINDS))
def pair(request, tmp_path):
    """A model of transformers and ours from its file, in evaluation."""
    reference = build_reference(request.param, tmp_path)
    return reference, load_encoder(tmp_path).eval()


@pytest.mark.parametrize("lengths", [LENGTHS, (9, 9, 9), (9, 9, 9, 9, 9, 9, 8)], ids=["packed", "full", "dense"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_hidden_states_are_those_of_transformers(pair, lengths, dtype, atol):
    reference, encoder = (model.to(dtype) for model in pair)
    assert isinstance(encoder, BertEncoder)
    batch = build_batch(lengths, pad_id=encoder.architecture.pad_id)
    expected = reference(**batch).last_hidden_state
    tokens = encoder(**batch)
    real = batch["attention_mask"].bool()
    assert (tokens.rows.kept is not None) == (lengths is LENGTHS)
    torch.testing.assert_close(tokens.padded()[real], expected[real], rtol=atol, atol=atol)


def test_gradients_are_those_of_transformers(tmp_path):
    reference = build_reference("bert", tmp_path).double()
    encoder = load_encoder(tmp_path, dropout=0.0, attention_dropout=0.0).double().train()
    batch = build_batch(pad_id=0)
    real, probe = batch["attention_mask"].bool(), torch.randn(24, dtype=torch.float64)
    (reference(**batch).last_hidden_state[real] @ probe).square().mean().backward()
    (encoder(**batch).hidden @ probe).square().mean().backward()
    for name in ("query", "key", "value"):
        theirs = reference.encoder.layer[1].attention.self.get_submodule(name).weight.grad
        index = ("query", "key", "value").index(name)
        torch.testing.assert_close(encoder.layer[1].attention.qkv.weight.grad.chunk(3)[index], theirs)
    words = reference.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(encoder.get_input_embeddings().weight.grad, words)


@pytest.mark.parametrize("types", [None, 1])
def test_segments_and_a_missing_mask_mean_what_they_mean_in_transformers(tmp_path, types):
    reference, batch = build_reference("bert", tmp_path), build_batch((9, 9))
    segments = {} if types is None else {"token_type_ids": torch.full_like(batch["input_ids"], types)}
    expected = reference(input_ids=batch["input_ids"], **segments).last_hidden_state
    hidden = load_encoder(tmp_path).eval()(batch["input_ids"], **segments).padded()
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


def test_torchs_own_kernels_give_the_same(tmp_path, monkeypatch):
    build_reference("bert", tmp_path)
    encoder, batch = load_encoder(tmp_path).eval(), build_batch(pad_id=0)
    real = batch["attention_mask"].bool()
    expected = encoder(**batch).padded()[real]
    monkeypatch.setattr(dropout, "HAND_WRITTEN_ON", frozenset())  # as on a GPU: dense, always masked
    assert token_rows.build_token_rows(real).kept is None
    torch.testing.assert_close(encoder(**batch).padded()[real], expected, rtol=1e-5, atol=1e-5)


# -- files -----------------------------------------------------------------------------------------------------------


def test_transformers_reads_what_we_write(pair, tmp_path):
    reference, encoder = pair
    save_bert(encoder, tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["config.json", "model.safetensors"]
    again = AutoModel.from_pretrained(tmp_path / "ours")
    for name, tensor in again.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(tensor, reference.state_dict()[name]), name
    assert type(again) is type(reference)
    reread = load_encoder(tmp_path / "ours")
    assert all(torch.equal(a, b) for a, b in zip(reread.parameters(), encoder.parameters(), strict=True))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_classifier_comes_back_with_its_head_and_transformers_finds_its_encoder(tmp_path, pooling):
    build_reference("bert", tmp_path / "base")
    model = load_bert(tmp_path / "base", num_outputs=4, pooling=pooling).eval()
    batch = build_batch(pad_id=0)
    save_bert(model, tmp_path / "trained")
    again = load_bert(tmp_path / "trained").eval()
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    hidden = AutoModel.from_pretrained(tmp_path / "trained")(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[real], model.encoder(**batch).padded()[real], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"num_outputs: 5, but .*trained holds a head of num_outputs 4$"):
        load_bert(tmp_path / "trained", num_outputs=5)


def test_transformers_classifier_and_ours_are_one(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(**KINDS["bert"], num_labels=3)
    theirs = BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    batch = build_batch(pad_id=0)
    model = load_bert(tmp_path / "theirs").eval()
    torch.testing.assert_close(model(**batch).logits, theirs(**batch).logits, rtol=1e-5, atol=1e-6)
    save_bert(model, tmp_path / "ours")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(again(**batch).logits, theirs(**batch).logits, rtol=0, atol=0)


def test_names_of_old_files_and_heads_of_pre_training_are_understood(tmp_path):
    build_reference("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma"): t for name, t in tensors.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in old.items()}
    old |= {"cls.predictions.bias": torch.zeros(60), "bert.embeddings.position_ids": torch.arange(512)}
    before = load_encoder(tmp_path).state_dict()
    save_file(old, tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_encoder(tmp_path).state_dict().items())


def test_a_file_that_does_not_fit_is_named(tmp_path):
    build_reference("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    key = "encoder.layer.0.attention.self.key.bias"
    save_file({name: tensor for name, tensor in tensors.items() if name != key}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=rf"model\.safetensors: missing {key}, though .*query\.bias is there"):
        load_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"position_embedding_type": "relative_key"}))
    with pytest.raises(ValueError, match=r"config\.json: relative positions or a decoder"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_other_encoders_run_on_transformers_own_code(tmp_path, kind):
    reference = build_reference(kind, tmp_path / "base")
    batch = build_batch()
    model = load_bert(tmp_path / "base", num_outputs=2, dropout=0.3, reinitialise_layers=1).eval()
    assert isinstance(model.encoder, HubEncoder)
    assert model.encoder.model.config.hidden_dropout_prob == 0.3
    assert len(model.layer_stacks[0]) == 3
    save_bert(model, tmp_path / "trained")
    again = load_bert(tmp_path / "trained").eval()
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=0)
    encoder = load_encoder(tmp_path / "base").eval()
    real = batch["attention_mask"].bool()
    expected = reference(**batch).last_hidden_state[real]
    torch.testing.assert_close(encoder(**batch).padded()[real], expected, rtol=1e-5, atol=1e-5)


# -- training --------------------------------------------------------------------------------------------------------


def test_attention_dropout_on_a_cpu_drops_a_key_for_all_queries_of_its_head(monkeypatch):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 8, dtype=torch.float64).unbind(0)
    masks = []
    draw = bert_layers.dropout_mask
    monkeypatch.setattr(bert_layers, "dropout_mask", lambda like, p: masks.append(draw(like, p)) or masks[-1])
    real = torch.arange(7) < torch.tensor([7, 4])[:, None]
    result = bert_layers.attend(query, key, value, real, 0.4)
    weights = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~real[:, None, None, :], -torch.inf).softmax(-1)
    assert masks[0].shape == (2, 3, 7, 1)
    dropped = weights * masks[0].transpose(-1, -2)  # one mask for every query
    torch.testing.assert_close(result, (dropped @ value).transpose(1, 2).reshape(2, 7, 24))


def test_attention_with_dropout_saves_nothing_that_grows_with_the_square_of_the_length():
    saved = []
    query, key, value = torch.randn(3, 1, 2, 128, 8, requires_grad=True).unbind(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t):
        bert_layers.attend(query, key, value, None, 0.1).sum().backward()
    assert max(saved) <= 2 * 128 * 8


@pytest.mark.parametrize("plan", ["recompute", "rebuild", "rebuild_linear", "save_attention"])
def test_activation_plans_serve_it_with_dropout_on(plan):
    torch.manual_seed(0)
    model, batch = create_bert(SMALL, num_outputs=3).train(), build_batch(pad_id=0)
    labels = torch.tensor([0, 1, 2, 0])

    def run():
        torch.manual_seed(5)
        model.zero_grad()
        model(**batch, labels=labels).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()], torch.get_rng_state()

    expected, state = run()
    (stack,) = model.layer_stacks
    with apply_plan(stack, parse_plan(plan)):
        gradients, after = run()
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert torch.equal(after, state)


def test_losses_of_the_three_kinds_of_head():
    torch.manual_seed(0)
    batch = build_batch(pad_id=0)
    classes, several, value = torch.tensor([0, 1, 2, 0]), torch.rand(4, 3).round(), torch.rand(4)
    for loss, labels, expected, outputs in (
        ("cross_entropy", classes, functional.cross_entropy, 3),
        ("binary_cross_entropy", several, functional.binary_cross_entropy_with_logits, 3),
        ("mse", value, lambda logits, labels: functional.mse_loss(logits[:, 0], labels), 1),
    ):
        model = create_bert(SMALL, num_outputs=outputs, loss=loss).eval()
        output = model(**batch, labels=labels)
        assert output.logits.shape == (4, outputs)
        torch.testing.assert_close(output.loss, expected(output.logits, labels))


def test_several_dropout_samples_share_one_run_of_the_encoder():
    torch.manual_seed(0)
    model, batch = create_bert(SMALL, num_outputs=3, num_dropout_samples=4).train(), build_batch(pad_id=0)
    calls, seen = [], []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model.head.register_forward_hook(lambda module, args, samples: seen.append(samples))
    labels = torch.tensor([0, 1, 2, 0])
    output = model(**batch, labels=labels)
    assert len(calls) == 1
    assert seen[0].shape == (4, 4, 3)
    assert not torch.equal(seen[0][0], seen[0][1])
    losses = [functional.cross_entropy(sample, labels) for sample in seen[0]]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    torch.testing.assert_close(output.logits, seen[0].mean(0))
    assert model.eval()(**batch).logits.shape == (4, 3)
    assert seen[-1].shape == (1, 4, 3)


def test_only_the_top_layers_are_drawn_anew(tmp_path):
    build_reference("bert", tmp_path)
    before, after = load_encoder(tmp_path), load_encoder(tmp_path, reinitialise_layers=2)
    changed = {
        name.split(".")[1] if name.startswith("layer.") else "embeddings"
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert changed == {"1", "2"}
    with pytest.raises(ValueError, match="4 layers to draw anew, but the encoder has 3"):
        load_encoder(tmp_path, reinitialise_layers=4)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert"])
def test_a_table_of_one_type_has_it_for_both_texts_of_a_pair(tmp_path, kind):
    """A tokenizer of BERT's calls the second text 1, and RoBERTa's table ends at 0."""
    build_reference(kind, tmp_path)
    encoder, batch = load_encoder(tmp_path).eval(), build_batch()
    types = torch.ones_like(batch["input_ids"])
    assert torch.equal(encoder(**batch, token_type_ids=types).padded(), encoder(**batch).padded())


def test_an_encoder_whose_layers_are_one_trains_and_draws_none_anew(tmp_path):
    """ALBERT goes through the same layer again and again."""
    reference = build_reference("albert", tmp_path)
    encoder, batch = load_encoder(tmp_path, reinitialise_layers=0).eval(), build_batch()
    real = batch["attention_mask"].bool()
    expected = reference(**batch).last_hidden_state[real]
    torch.testing.assert_close(encoder(**batch).padded()[real], expected, rtol=1e-5, atol=1e-5)
    encoder(**batch).padded().sum().backward()
    assert encoder.get_input_embeddings().weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="1 layers to draw anew, but the encoder has 0"):
        load_encoder(tmp_path, reinitialise_layers=1)


def test_texts_longer_than_the_positions_are_refused_in_words(tmp_path):
    build_reference("roberta", tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.max_length == 38
    with pytest.raises(ValueError, match="a text of 39 tokens, but the encoder reads at most 38"):
        encoder(**build_batch((39,)))
