"""T5 against transformers' own classes: logits, gradients, checkpoints both ways, and what breaks in practice."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm as ReferenceNorm

from components.models.shared import dropout, token_rows
from components.models.t5 import layers as t5_layers
from components.models.t5.checkpoint import T5Architecture, T5Classifier, create_t5, load_t5, save_t5
from components.optim.param_groups import freeze_embeddings

VOCABULARY = 40
SIZES = {"vocab_size": VOCABULARY, "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 3}
SIZES |= {"num_decoder_layers": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
ARCHITECTURE = T5Architecture(**SIZES)
KINDS = ("t5_v1_1", "t5_v1_0", "mt5")


def build_reference(kind):
    """transformers' model with random weights, dropout off; v1.1 and mT5 with a head of their own."""
    torch.manual_seed(KINDS.index(kind))
    shared = {**SIZES, "decoder_start_token_id": 0, "dropout_rate": 0.0}
    if kind == "t5_v1_0":
        return T5ForConditionalGeneration(T5Config(**shared, feed_forward_proj="relu"))
    if kind == "mt5":
        model = MT5ForConditionalGeneration(MT5Config(**shared, feed_forward_proj="gated-gelu"))
    else:
        untied = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        model = T5ForConditionalGeneration(T5Config(**shared, **untied))
    model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, SIZES["d_model"]))
    return model


def build_batch(*, padded):
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(3, VOCABULARY, (4, 17), generator=generator)
    labels = torch.randint(3, VOCABULARY, (4, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    if padded:
        for row, (source, target) in enumerate([(17, 9), (5, 2), (9, 6), (1, 1)]):
            input_ids[row, source:] = 0
            attention_mask[row, source:] = 0
            labels[row, target:] = -100
        labels[0, 3] = -100  # a gap inside a row: no loss there, yet later tokens see it
        attention_mask[0, 4] = 0  # a gap inside the source
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@pytest.fixture
def honest_norms(monkeypatch):
    """transformers' norm takes its statistics in float32 even for float64; lifted here to compare to 1e-10."""

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(ReferenceNorm, "forward", forward)
    monkeypatch.setattr(MT5LayerNorm, "forward", forward)


def load_pair(kind, folder):
    reference = build_reference(kind)
    reference.save_pretrained(folder)
    return reference.train(), load_t5(folder, head="seq2seq").train()


def assert_equal_training(reference, model, batch, tolerance):
    expected, actual = reference(**batch), model(**batch, with_logits=True)
    counted = batch["labels"] != -100
    scale = expected.logits.abs().max()
    assert (expected.logits - actual.logits)[counted].abs().max() <= tolerance * scale
    assert abs(expected.loss - actual.loss) <= tolerance * expected.loss
    expected.loss.backward()
    actual.loss.backward()
    wanted = {name: p.grad for name, p in reference.named_parameters()}
    assert len(wanted) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert (parameter.grad - wanted[name]).norm() <= tolerance * wanted[name].norm(), name


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_every_gradient_equal_transformers_in_float64(kind, padded, tmp_path, honest_norms):
    reference, model = load_pair(kind, tmp_path)
    assert_equal_training(reference.double(), model.double(), build_batch(padded=padded), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_every_gradient_equal_transformers_in_float32(kind, tmp_path):
    assert_equal_training(*load_pair(kind, tmp_path), build_batch(padded=True), 1e-5)


def test_padding_is_packed_away_without_changing_anything(tmp_path, monkeypatch):
    _, model = load_pair("t5_v1_1", tmp_path)
    batch = build_batch(padded=True)
    assert token_rows.build_token_rows(batch["attention_mask"].bool()).kept.numel() == 31
    packed = model(**batch, with_logits=True)
    monkeypatch.setattr(token_rows, "PACK_BELOW", 0.0)
    assert token_rows.build_token_rows(batch["attention_mask"].bool()).kept is None
    dense = model(**batch, with_logits=True)
    torch.testing.assert_close(packed.loss, dense.loss, rtol=1e-6, atol=0)
    wanted = (batch["labels"] != -100).flip(1).cumsum(1).flip(1) > 0
    torch.testing.assert_close(packed.logits[wanted], dense.logits[wanted], rtol=1e-5, atol=1e-5)
    assert packed.logits[~wanted].abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_accelerator_runs_is_the_same(kind, tmp_path, monkeypatch):
    reference, model = load_pair(kind, tmp_path)
    monkeypatch.setattr(dropout, "HAND_WRITTEN_ON", frozenset())
    assert_equal_training(reference, model, build_batch(padded=True), 1e-5)
    torch.manual_seed(0)
    first = create_t5(ARCHITECTURE, head="seq2seq").train()
    losses = [first(**build_batch(padded=True)).loss.item() for _ in range(2)]
    assert losses[0] != losses[1]


def test_an_example_without_any_token_stays_apart(tmp_path):
    _, model = load_pair("t5_v1_1", tmp_path)
    batch = build_batch(padded=True)
    batch["attention_mask"][3] = 0
    assert token_rows.build_token_rows(batch["attention_mask"].bool()).kept is None
    assert torch.isfinite(model(**batch).loss)


def test_predicting_in_inference_mode_does_not_spoil_training():
    t5_layers._bucket_table.cache_clear()
    model, batch = create_t5(ARCHITECTURE, head="seq2seq"), build_batch(padded=True)
    with torch.inference_mode():
        model(**batch)
    model(**batch).loss.backward()
    assert model.encoder.block[0].self_attention.relative_attention_bias.weight.grad.abs().sum() > 0


def test_logits_are_there_for_whoever_asks():
    model, batch = create_t5(replace(ARCHITECTURE, dropout=0.0), head="seq2seq"), build_batch(padded=True)
    silent, asked = model(**batch), model(**batch, with_logits=True)
    assert silent.logits is None
    assert torch.equal(silent.loss, asked.loss)
    assert asked.logits.shape == (4, 9, VOCABULARY)
    torch.testing.assert_close(
        functional.cross_entropy(asked.logits.flatten(0, 1), batch["labels"].flatten()), asked.loss, rtol=1e-6, atol=0
    )


def test_label_smoothing_is_torchs(tmp_path):
    reference, _ = load_pair("t5_v1_1", tmp_path)
    batch = build_batch(padded=True)
    model = load_t5(tmp_path, head="seq2seq", label_smoothing=0.2)
    logits, labels = reference(**batch).logits.flatten(0, 1), batch["labels"].flatten()
    expected = functional.cross_entropy(logits, labels, ignore_index=-100, label_smoothing=0.2)
    torch.testing.assert_close(model(**batch).loss, expected, rtol=1e-5, atol=0)


def test_each_kind_of_weight_has_transformers_spread():
    torch.manual_seed(0)
    architecture = T5Architecture(200, 64, 16, 128, 2, 2, 4)
    model = create_t5(architecture, head="seq2seq")
    spreads = {
        "shared": 1.0,
        "lm_head": 1.0,
        "q": (64 * 16) ** -0.5,
        "k": 64**-0.5,
        "v": 64**-0.5,
        "o": 64**-0.5,
        "wi_0": 64**-0.5,
        "wi_1": 64**-0.5,
        "wo": 128**-0.5,
        "relative_attention_bias": 64**-0.5,
    }
    seen = set()
    for name, weight in model.named_parameters():
        kind = name.split(".")[-2]
        if "layer_norm" in kind:
            assert torch.equal(weight, torch.ones(64))
            continue
        seen.add(kind)
        assert abs(weight.std() / spreads[kind] - 1) < 4 / (2 * weight.numel()) ** 0.5, name
    assert seen == set(spreads)


# Checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_our_files_keeps_transformers_logits_and_names(kind, tmp_path):
    reference, model = load_pair(kind, tmp_path / "theirs")
    save_t5(model, tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = type(reference).from_pretrained(tmp_path / "ours").train()
    batch = build_batch(padded=True)
    assert torch.equal(again(**batch).logits, reference(**batch).logits)
    assert load_t5(tmp_path / "ours", head="seq2seq").architecture == model.architecture
    assert (again.lm_head.weight is again.shared.weight) == (kind == "t5_v1_0")


def test_from_scratch_checkpoint_opens_in_transformers(tmp_path):
    model = create_t5(replace(ARCHITECTURE, dropout=0.0), head="seq2seq").eval()
    save_t5(model, tmp_path)
    batch = build_batch(padded=False)
    reference = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    actual = model(**batch, with_logits=True).logits
    torch.testing.assert_close(actual, reference(**batch).logits, rtol=1e-5, atol=1e-5)


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_the_files_matrices_decide_whether_the_head_is_tied(tmp_path):
    for kind, tied, scaled in (("t5_v1_1", False, False), ("t5_v1_0", True, True), ("mt5", False, False)):
        build_reference(kind).save_pretrained(tmp_path / kind)
        # transformers 5 writes true for all three
        assert json.loads((tmp_path / kind / "config.json").read_text())["tie_word_embeddings"] is True
        model = load_t5(tmp_path / kind, head="seq2seq")
        assert (model.architecture.tie_embeddings, model.architecture.scale_decoder_outputs) == (tied, scaled)
        assert hasattr(model, "lm_head") is not tied


def test_files_from_before_transformers_5(tmp_path):
    for kind, tied in (("t5_v1_1", False), ("t5_v1_0", True), ("mt5", False)):
        build_reference(kind).save_pretrained(tmp_path / kind)
        old = {"transformers_version": "4.30.0", "scale_decoder_outputs": None, "num_decoder_layers": 3}
        edit_config(tmp_path / kind, **old, tie_word_embeddings=None if tied else False)
        architecture = load_t5(tmp_path / kind, head="seq2seq").architecture
        assert (architecture.tie_embeddings, architecture.scale_decoder_outputs) == (tied, tied)


def test_a_configuration_that_contradicts_its_tensors_is_refused(tmp_path):
    build_reference("t5_v1_1").save_pretrained(tmp_path / "untied")
    edit_config(tmp_path / "untied", transformers_version="4.30.0", scale_decoder_outputs=None)
    with pytest.raises(ValueError, match=r"untied/model\.safetensors: shared\.weight and lm_head\.weight differ"):
        load_t5(tmp_path / "untied", head="seq2seq")
    build_reference("t5_v1_0").save_pretrained(tmp_path / "tied")
    edit_config(tmp_path / "tied", tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"no lm_head\.weight, but config\.json says tie_word_embeddings false"):
        load_t5(tmp_path / "tied", head="seq2seq")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (
            "encoder.block.1.layer.0.SelfAttention.q.weight",
            None,
            "missing encoder.block.1.layer.0.SelfAttention.q.weight",
        ),
        ("encoder.block.7.layer.0.SelfAttention.q.weight", torch.ones(2), "unexpected encoder.block.7"),
        ("decoder.final_layer_norm.weight", torch.ones(25), r"decoder.final_layer_norm.weight is \[25\], not \[24\]"),
        ("encoder.embed_tokens.weight", torch.ones(40, 24), "encoder.embed_tokens.weight differs from shared.weight"),
    ],
)
def test_a_file_that_does_not_fit_names_itself_and_its_tensors(name, tensor, message, tmp_path):
    save_t5(create_t5(ARCHITECTURE, head="seq2seq"), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file) | {name: tensor}
    save_file({key: value for key, value in tensors.items() if value is not None}, file)
    with pytest.raises(ValueError, match=f"model.safetensors: .*{message}"):
        load_t5(tmp_path, head="seq2seq")


def test_known_harmless_tensors_are_dropped_and_half_precision_is_read_as_float32(tmp_path):
    model = create_t5(ARCHITECTURE, head="seq2seq")
    save_t5(model, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(file).items()}
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(8, 3)
    save_file(tensors, file)
    loaded = load_t5(tmp_path, head="seq2seq", dropout=0.3)
    assert loaded.architecture == replace(model.architecture, dropout=0.3)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.shared.weight, model.shared.weight.half().float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "config.json: model_type is 'bert'"),
        ({"d_kv": None}, "config.json: d_kv missing"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward: must be one of gated-gelu, relu, not 'gated-silu'"),
    ],
)
def test_a_configuration_of_something_else_is_refused(changes, message, tmp_path):
    save_t5(create_t5(ARCHITECTURE, head="seq2seq"), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_t5(tmp_path, head="seq2seq")


# The classifier


@pytest.mark.parametrize("kind", KINDS)
def test_classifier_is_the_seeds_transcription(kind, tmp_path):
    reference = build_reference(kind).eval()
    reference.save_pretrained(tmp_path)
    model = load_t5(tmp_path, head="classifier", num_classes=3).eval()
    batch = build_batch(padded=True)
    batch["labels"] = torch.tensor([0, 2, 1, 2])
    reference.lm_head = torch.nn.Linear(SIZES["d_model"], 3, bias=False)
    reference.lm_head.weight = model.lm_head.weight
    start = torch.zeros(4, 1, dtype=torch.long)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = reference(**inputs, decoder_input_ids=start).logits[:, 0]
    actual = model(**batch)
    torch.testing.assert_close(actual.logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual.loss, functional.cross_entropy(expected, batch["labels"]))
    assert model(**inputs).loss is None


@pytest.mark.parametrize(
    ("loss", "num_classes", "labels", "expected"),
    [
        ("mse", 1, torch.tensor([0.5, 2.0, -1.0, 0.0]), lambda x, y: ((x[:, 0] - y) ** 2).mean()),
        ("binary_cross_entropy", 1, torch.tensor([1, 0, 1, 1]), None),
        ("binary_cross_entropy", 2, torch.tensor([[1.0, 0], [0, 0], [1, 1], [0, 1]]), None),
    ],
)
def test_classifier_losses(loss, num_classes, labels, expected):
    model = create_t5(ARCHITECTURE, head="classifier", num_classes=num_classes, loss=loss).eval()
    batch = build_batch(padded=True) | {"labels": labels}
    output = model(**batch)
    assert output.logits.shape == (4, num_classes)
    if expected is None:
        probability, truth = output.logits.sigmoid().flatten(), labels.flatten().float()
        wanted = -(truth * probability.log() + (1 - truth) * (1 - probability).log()).mean()
    else:
        wanted = expected(output.logits, labels)
    torch.testing.assert_close(output.loss, wanted)


def test_classifier_checkpoint_keeps_its_head_and_says_what_it_is(tmp_path):
    model = create_t5(ARCHITECTURE, head="classifier", num_classes=2, loss="binary_cross_entropy").eval()
    save_t5(model, tmp_path)
    loaded = load_t5(tmp_path, head="classifier").eval()
    assert isinstance(loaded, T5Classifier)
    assert (loaded.num_classes, loaded.loss) == (2, "binary_cross_entropy")
    batch = build_batch(padded=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    with pytest.raises(ValueError, match=r"num_classes: 3, but .* holds a head of 2 classes"):
        load_t5(tmp_path, head="classifier", num_classes=3)
    with pytest.raises(ValueError, match="holds a classifier"):
        load_t5(tmp_path, head="seq2seq")


def test_a_fresh_classifier_head_is_drawn(tmp_path):
    save_t5(create_t5(ARCHITECTURE, head="seq2seq"), tmp_path)
    torch.manual_seed(0)
    head = load_t5(tmp_path, head="classifier", num_classes=30).lm_head.weight
    assert abs(head.std() * SIZES["d_model"] ** 0.5 - 1) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "tagger"}, "head: must be one of seq2seq, classifier, not 'tagger'"),
        ({"head": "classifier"}, "num_classes: a classifier needs"),
        ({"head": "classifier", "num_classes": 0}, "num_classes: must be at least 1, not 0"),
        ({"head": "classifier", "num_classes": 2, "loss": "hinge"}, "loss: must be one of .*, not 'hinge'"),
    ],
)
def test_wrong_heads_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_t5(ARCHITECTURE, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 0}, "num_heads: must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout: must be in \[0, 1\), not 1.0"),
        ({"model_type": "t0"}, "model_type: must be one of t5, mt5, not 't0'"),
        ({"relative_attention_max_distance": 4}, "relative_attention_num_buckets: 8 buckets"),
        ({"model_type": "mt5", "scale_decoder_outputs": True}, "scale_decoder_outputs: mT5 never scales"),
    ],
)
def test_wrong_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ARCHITECTURE, **changes)


def test_frozen_embeddings_do_not_move():
    model = create_t5(ARCHITECTURE, head="seq2seq")
    freeze_embeddings(model)
    model(**build_batch(padded=True)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == ["shared.weight"]
