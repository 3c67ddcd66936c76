"""T5 over a trimmed vocabulary: what is kept computes the same bits, and goes back where it came from."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, MT5ForConditionalGeneration, T5ForConditionalGeneration

from components.data.text.trimming import to_new_ids, trim_vocabulary
from components.data.text.vocabulary import build_vocabulary
from components.models.t5.checkpoint import T5Architecture, create_t5, load_t5, save_t5
from components.models.t5.trimming import trim_t5, untrim_t5

PIECES, ROWS = 1012, 1024  # as published models, with rows that no piece has
SIZES = {"vocab_size": ROWS, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 2}
UNTIED = T5Architecture(**SIZES, num_heads=4, dropout=0.0)
KINDS = {
    "mt5": replace(UNTIED, model_type="mt5"),
    "t5_v1_1": UNTIED,
    "t5_v1_0": replace(UNTIED, tie_embeddings=True, scale_decoder_outputs=True, feed_forward="relu"),
}
KEPT = [*range(259), *range(300, PIECES, 7)]


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    return create_t5(KINDS[request.param], head="seq2seq").eval()


def build_classifier():
    torch.manual_seed(0)
    return create_t5(UNTIED, head="classifier", num_classes=3).eval()


def build_batch(lengths=(12, 5, 9), target_lengths=(4, 7, 1)):
    """Batch of new ids, and the same in old ones."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    input_ids = torch.randint(3, len(KEPT), shape, generator=generator) * mask
    labels = torch.randint(3, len(KEPT), (shape[0], max(target_lengths)), generator=generator)
    beyond = torch.arange(labels.shape[1]) >= torch.tensor(target_lengths)[:, None]
    kept = torch.tensor(KEPT)
    new = {"input_ids": input_ids, "attention_mask": mask, "labels": labels.masked_fill(beyond, -100)}
    old = {"input_ids": kept[input_ids], "attention_mask": mask, "labels": kept[labels].masked_fill(beyond, -100)}
    return new, old


@pytest.mark.parametrize("target_lengths", [(1, 1, 1), (4, 7, 1), (40, 33, 37)])
def test_logits_over_kept_tokens_keep_their_bits(model, target_lengths):
    trimmed = trim_t5(model, KEPT)
    new, old = build_batch(target_lengths=target_lengths)
    with torch.no_grad():
        before, after = model(**old, with_logits=True).logits, trimmed(**new, with_logits=True).logits
    assert before.shape[-1] == ROWS
    assert after.shape[-1] == 368 == len(KEPT) + 7
    assert torch.equal(after[..., : len(KEPT)], before[..., KEPT])


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 16])
def test_decoding_step_by_step_keeps_the_bits_too(model, num_rows):
    trimmed = trim_t5(model, KEPT)
    tokens = torch.randint(3, len(KEPT), (4, num_rows), generator=torch.Generator().manual_seed(2))
    sources = torch.randint(3, len(KEPT), (num_rows, 6), generator=torch.Generator().manual_seed(3))
    kept, mask = torch.tensor(KEPT), torch.ones_like(sources)
    with torch.no_grad():
        before = model.start_decoding(kept[sources], mask, max_length=4)
        after = trimmed.start_decoding(sources, mask, max_length=4)
        for step in tokens:
            expected = model.decode_step(kept[step], before)[:, KEPT]
            assert torch.equal(trimmed.decode_step(step, after)[:, : len(KEPT)], expected)


def test_without_filled_rows_logits_agree_to_rounding(model):
    """A product of few rows by an odd number of columns takes another kernel for the last columns."""
    trimmed = trim_t5(model, KEPT, pad_rows_to_multiple_of=1)
    new, old = build_batch()
    assert trimmed.architecture.vocab_size == len(KEPT) == 361
    with torch.no_grad():
        before, after = model(**old, with_logits=True).logits, trimmed(**new, with_logits=True).logits
        torch.testing.assert_close(after, before[..., KEPT], rtol=1e-5, atol=1e-5)
        before = model.double()(**old, with_logits=True).logits
        after = trimmed.double()(**new, with_logits=True).logits
    torch.testing.assert_close(after, before[..., KEPT], rtol=1e-12, atol=1e-12)


def test_a_classifier_keeps_its_head_and_its_bits():
    model = build_classifier()
    trimmed = trim_t5(model, KEPT)
    new, old = build_batch()
    for batch in (new, old):
        batch["labels"] = torch.tensor([0, 2, 1])
    with torch.no_grad():
        before, after = model(**old), trimmed(**new)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.loss, before.loss)
    assert torch.equal(trimmed.lm_head.weight, model.lm_head.weight)
    assert trimmed.shared.weight.shape == (368, 64)


def test_gradients_of_kept_rows_are_those_of_the_untrimmed_classifier():
    model = build_classifier().double()
    trimmed = trim_t5(model, KEPT)
    new, old = build_batch()
    for network, batch in ((model, old), (trimmed, new)):
        network(**{**batch, "labels": torch.tensor([0, 2, 1])}).loss.backward()
    theirs = dict(model.named_parameters())
    for name, parameter in trimmed.named_parameters():
        expected = theirs[name].grad[KEPT] if name == "shared.weight" else theirs[name].grad
        torch.testing.assert_close(parameter.grad[: len(expected)], expected, rtol=1e-12, atol=1e-14)


def test_the_model_itself_is_neither_changed_nor_shared(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trimmed = trim_t5(model, KEPT)
    with torch.no_grad():
        for parameter in trimmed.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.architecture.vocab_size == model.shared.num_embeddings == ROWS


def test_settings_come_along(model):
    model.label_smoothing = 0.1
    model.shared.weight.requires_grad_(False)
    model.encoder.block[0].requires_grad_(False)
    trimmed = trim_t5(model.train().to(torch.bfloat16), KEPT)
    assert trimmed.label_smoothing == 0.1
    assert trimmed.training
    assert {p.dtype for p in trimmed.parameters()} == {torch.bfloat16}
    frozen = [[name for name, p in m.named_parameters() if not p.requires_grad] for m in (model, trimmed)]
    assert frozen[0] == frozen[1]
    assert "shared.weight" in frozen[1]
    assert trimmed.architecture == replace(model.architecture, vocab_size=368)
    assert trimmed.shared.num_embeddings == 368
    if not model.architecture.tie_embeddings:
        assert trimmed.lm_head.out_features == 368


def test_rows_without_an_old_id_are_the_mean_of_all(model):
    trimmed = trim_t5(model, [*KEPT, -1], pad_rows_to_multiple_of=8)
    matrices = [(model.shared.weight, trimmed.shared.weight)]
    if not model.architecture.tie_embeddings:
        matrices.append((model.lm_head.weight, trimmed.lm_head.weight))
    for old, new in matrices:
        assert torch.equal(new[len(KEPT) :], old.mean(0).expand(7, -1))
        assert torch.equal(new[: len(KEPT)], old[KEPT])


def test_special_ids_move_with_their_pieces():
    model = create_t5(replace(UNTIED, pad_token_id=5, eos_token_id=2, decoder_start_token_id=5), head="seq2seq")
    moved = trim_t5(model, [5, 2, 0, 7]).architecture
    assert (moved.pad_token_id, moved.eos_token_id, moved.decoder_start_token_id) == (0, 1, 0)
    back = untrim_t5(trim_t5(model, [5, 2, 0, 7]), [5, 2, 0, 7], model)
    assert back.architecture == model.architecture


def test_untrimming_puts_trained_rows_back(model):
    kept_ids = [*KEPT, -1]
    trimmed = trim_t5(model, kept_ids)
    same = untrim_t5(trimmed, kept_ids, model)
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        for parameter in trimmed.parameters():
            parameter.add_(1.0)
    full = untrim_t5(trimmed, kept_ids, model)
    others = sorted(set(range(ROWS)) - set(KEPT))
    for name, tensor in full.state_dict().items():
        if name in ("shared.weight", "lm_head.weight"):
            assert torch.equal(tensor[KEPT], model.state_dict()[name][KEPT] + 1.0)
            assert torch.equal(tensor[others], model.state_dict()[name][others])
        else:
            assert torch.equal(tensor, model.state_dict()[name] + 1.0)
    assert full.architecture == model.architecture


def test_saved_and_loaded_by_us_and_by_transformers(model, tmp_path):
    trimmed = trim_t5(model, KEPT)
    save_t5(trimmed, tmp_path)
    loaded = load_t5(tmp_path, head="seq2seq").eval()
    is_mt5 = model.architecture.model_type == "mt5"
    theirs = (MT5ForConditionalGeneration if is_mt5 else T5ForConditionalGeneration).from_pretrained(tmp_path).eval()
    new, _ = build_batch(target_lengths=(7, 7, 7))
    with torch.no_grad():
        expected = trimmed(**new, with_logits=True).logits
        assert torch.equal(loaded(**new, with_logits=True).logits, expected)
        torch.testing.assert_close(theirs(**new).logits, expected, rtol=1e-4, atol=1e-4)


def test_vocabulary_and_model_from_one_folder(model, tmp_path):
    """The whole way: a file, its corpus, the matrices, and transformers reading both from where we wrote them."""
    corpus = ["the island of the other cat", "another northern province", "Київська область", "Північний острів"]
    build_vocabulary(corpus * 4, tmp_path / "source", kind="unigram", size=300)
    texts = ["the cat", "острів"]
    vocabulary = trim_vocabulary(tmp_path / "source", texts, tmp_path / "out")
    trimmed = trim_t5(model, vocabulary.kept_ids)
    save_t5(trimmed, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    strings = [*texts, "ქართული ☃"]
    assert tokenizer(strings)["input_ids"] == vocabulary.vocabulary.encode(strings)
    report = vocabulary.report
    saved = sum(p.nbytes for p in model.parameters()) - sum(
        p.nbytes for p in trim_t5(model, vocabulary.kept_ids, pad_rows_to_multiple_of=1).parameters()
    )
    is_tied = model.architecture.tie_embeddings
    assert report.bytes_saved(d_model=64, is_tied=is_tied, num_rows_before=ROWS) == saved
    assert to_new_ids([0, 1, 2], vocabulary.kept_ids) == [0, 1, 2]


def test_lists_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match="kept_ids: id 1024 has no row in a model of 1024"):
        trim_t5(model, [0, 1, 2, 1024])
    with pytest.raises(ValueError, match="kept_ids: an old id stands there twice"):
        trim_t5(model, [0, 1, 2, 7, 7])
    with pytest.raises(ValueError, match="kept_ids: lack pad_token_id 0, decoder_start_token_id 0"):
        trim_t5(model, [-1, 1, 2])
    with pytest.raises(ValueError, match="kept_ids: no piece has an old id"):
        trim_t5(model, [-1])
    with pytest.raises(ValueError, match="pad_rows_to_multiple_of: must be at least 1, not 0"):
        trim_t5(model, KEPT, pad_rows_to_multiple_of=0)
    trimmed = trim_t5(model, KEPT)
    with pytest.raises(ValueError, match="original: has another head"):
        untrim_t5(trimmed, KEPT, create_t5(replace(UNTIED, d_model=32), head="seq2seq"))
    with pytest.raises(ValueError, match="kept_ids: 369 ids for a model of 368 rows"):
        untrim_t5(trimmed, list(range(369)), model)
