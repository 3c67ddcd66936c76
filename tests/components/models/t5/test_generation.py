"""Decoding: the cache against whole forward passes, greedy and beam search against transformers, ensembles."""

from dataclasses import replace

import pytest
import torch
from transformers import T5ForConditionalGeneration

from components.models.t5 import generation as t5_generation
from components.models.t5.checkpoint import T5Architecture, create_t5, save_t5
from components.models.t5.generation import generate

ARCHITECTURE = T5Architecture(
    vocab_size=30, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=2, dropout=0.1
)
LENGTH = 12


def build_model(seed, *, architecture=ARCHITECTURE, end=0.0):
    """A random model; `end` raises the chance of the end token, so that examples finish at different steps."""
    torch.manual_seed(seed)
    model = create_t5(architecture, head="seq2seq").eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.3)
        model.decoder.final_layer_norm.weight.mul_(1.5)
        model.lm_head.weight[1] += end * torch.randn(16).sign()
    return model


def build_inputs(batch=9):
    generator = torch.Generator().manual_seed(11)
    input_ids = torch.randint(3, 30, (batch, 8), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row in range(batch):
        input_ids[row, 2 + row % 7 :] = 0
        attention_mask[row, 2 + row % 7 :] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def as_reference(model, folder):
    save_t5(model, folder)
    return T5ForConditionalGeneration.from_pretrained(folder).eval()


def padded(sequences, length=LENGTH):
    return torch.nn.functional.pad(sequences, (0, length - sequences.shape[1]))


def sequence_log_probs(model, inputs, sequences):
    """Sum of the log-probabilities of each sequence by one whole forward pass, and its length."""
    counted = torch.ones_like(sequences, dtype=torch.bool)
    counted[:, 1:] = ~((sequences == 1).cumsum(1)[:, :-1] > 0)
    logits = model(**inputs, labels=sequences.masked_fill(~counted, -100), with_logits=True).logits
    chosen = logits.log_softmax(-1).gather(2, sequences[:, :, None]).squeeze(2)
    return (chosen * counted).sum(1), counted.sum(1)


def test_each_cached_step_equals_the_whole_forward_pass():
    model, inputs = build_model(0), build_inputs()
    labels = torch.randint(3, 30, (9, LENGTH), generator=torch.Generator().manual_seed(2))
    expected = model(**inputs, labels=labels, with_logits=True).logits
    decoder_ids = model.shifted_right(labels)
    with torch.inference_mode():
        state = model.start_decoding(**inputs, max_length=LENGTH)
        for step in range(LENGTH):
            actual = model.decode_step(decoder_ids[:, step], state)
            torch.testing.assert_close(actual, expected[:, step], rtol=1e-5, atol=1e-5)


def test_reordered_and_shrunken_caches_follow_their_rows():
    model, inputs = build_model(0), build_inputs()
    labels = torch.randint(3, 30, (9, 6), generator=torch.Generator().manual_seed(2))
    decoder_ids, kept = model.shifted_right(labels), torch.tensor([7, 2, 4])
    expected = model(**inputs, labels=labels, with_logits=True).logits[kept]
    with torch.inference_mode():
        state = model.start_decoding(**inputs, max_length=6)
        for step in range(3):
            model.decode_step(decoder_ids[:, step], state)
        state.select(kept, kept)
        for step in range(3, 6):
            actual = model.decode_step(decoder_ids[kept, step], state)
            torch.testing.assert_close(actual, expected[:, step], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_equals_transformers_token_for_token(seed, tmp_path):
    model, inputs = build_model(seed, end=0.4), build_inputs()
    expected = as_reference(model, tmp_path).generate(**inputs, max_new_tokens=LENGTH, do_sample=False, num_beams=1)
    actual = generate([model], **inputs, max_length=LENGTH)
    assert torch.equal(padded(actual.sequences), padded(expected[:, 1:]))
    sums, lengths = sequence_log_probs(model, inputs, actual.sequences)
    torch.testing.assert_close(actual.scores, sums / lengths, rtol=1e-5, atol=1e-5)


def test_the_greedy_cases_end_at_different_steps():
    ends = [generate([build_model(seed, end=0.4)], **build_inputs(), max_length=LENGTH).sequences for seed in range(4)]
    lengths = {int((sequence != 0).sum()) for sequences in ends for sequence in sequences}
    assert len(lengths) >= 4
    assert LENGTH in lengths


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_beams_equal_transformers_early_stopping(seed, num_beams, length_penalty, tmp_path):
    model, inputs = build_model(seed, end=0.4), build_inputs()
    settings = {"num_beams": num_beams, "length_penalty": length_penalty}
    expected = as_reference(model, tmp_path).generate(
        **inputs,
        **settings,
        max_new_tokens=LENGTH,
        early_stopping=True,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    actual = generate([model], **inputs, max_length=LENGTH, **settings)
    # transformers fills a finished beam with the end token where the padding id is 0
    wanted = expected.sequences[:, 1:]
    wanted[:, 1:] = wanted[:, 1:].masked_fill((wanted == 1).cumsum(1)[:, :-1] > 0, 0)
    assert torch.equal(padded(actual.sequences), padded(wanted))
    sums, lengths = sequence_log_probs(model, inputs, actual.sequences)
    torch.testing.assert_close(actual.scores, sums / lengths, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected.sequences_scores, sums / lengths**length_penalty, rtol=1e-4, atol=1e-5)


def test_more_beams_find_likelier_text():
    model, inputs = build_model(1, end=0.4), build_inputs()
    by_width = []
    for num_beams in (1, 4):
        sequences = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams, length_penalty=0.0).sequences
        by_width.append(sequence_log_probs(model, inputs, sequences)[0].sum())
    assert by_width[1] > by_width[0]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_two_equal_models_write_what_one_writes(num_beams):
    model, inputs = build_model(2, end=0.4), build_inputs()
    one = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams)
    two = generate([model, model], **inputs, max_length=LENGTH, num_beams=num_beams)
    assert torch.equal(one.sequences, two.sequences)
    assert torch.equal(one.scores, two.scores)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_ensembles_score_is_the_mean_of_its_models_scores(num_beams):
    deeper = replace(ARCHITECTURE, num_layers=1, num_heads=3)
    models = [build_model(2, end=0.4), build_model(3, architecture=deeper, end=0.4)]
    inputs = build_inputs()
    result = generate(models, **inputs, max_length=LENGTH, num_beams=num_beams)
    alone = [generate([model], **inputs, max_length=LENGTH, num_beams=num_beams).sequences for model in models]
    assert all(not torch.equal(padded(result.sequences), padded(sequences)) for sequences in alone)
    scores = []
    for model in models:
        sums, lengths = sequence_log_probs(model, inputs, result.sequences)
        scores.append(sums / lengths)
    torch.testing.assert_close(result.scores, sum(scores) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_examples_text_does_not_depend_on_its_batch(num_beams, monkeypatch):
    model, inputs = build_model(0, end=0.4), build_inputs()
    together = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams)
    for row in range(9):
        single = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        alone = generate([model], **single, max_length=LENGTH, num_beams=num_beams)
        assert torch.equal(padded(alone.sequences)[0], padded(together.sequences)[row])
    monkeypatch.setattr(t5_generation, "SHRINK_BELOW", 0.0)
    whole = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams)
    assert torch.equal(padded(whole.sequences), padded(together.sequences))


def test_ties_go_to_the_lowest_id():
    model = build_model(0)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert generate([model], **build_inputs(), max_length=3).sequences.unique().tolist() == [0]
    values = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]])
    top, index = t5_generation._top(values, 4)
    assert top.tolist() == [[3.0, 3.0, 3.0, 2.0]]
    assert index.tolist() == [[1, 2, 4, 3]]


def test_models_come_back_in_the_mode_they_were_in():
    models = [build_model(0).train(), build_model(1).eval()]
    generate(models, **build_inputs(), max_length=2)
    assert [model.training for model in models] == [True, False]


def test_wrong_requests_are_refused():
    model, inputs = build_model(0), build_inputs()
    other = create_t5(replace(ARCHITECTURE, vocab_size=31), head="seq2seq")
    with pytest.raises(ValueError, match="models: at least one"):
        generate([], **inputs, max_length=2)
    with pytest.raises(ValueError, match=r"models: their vocab_size differ \(\[30, 31\]\)"):
        generate([model, other], **inputs, max_length=2)
    with pytest.raises(ValueError, match="max_length and num_beams: must be at least 1, not 0 and 1"):
        generate([model], **inputs, max_length=0)
    with pytest.raises(ValueError, match="num_beams: 16 needs a vocabulary of twice as many, not 30"):
        generate([model], **inputs, max_length=2, num_beams=16)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_forced_vocabulary_writes_nothing_else_and_scores_by_what_it_may_write(num_beams, tied):
    """Equal to a model whose head knows the allowed pieces only."""
    allowed = torch.tensor([1, 4, 5, 9, 17, 22, 28])
    architecture = replace(ARCHITECTURE, tie_embeddings=tied, scale_decoder_outputs=tied)
    torch.manual_seed(3)
    model, inputs = create_t5(architecture, head="seq2seq").eval(), build_inputs()
    forced = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams, allowed_ids=allowed.flip(0))
    assert set(forced.sequences.flatten().tolist()) <= {0, *allowed.tolist()}
    free = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams)
    assert not set(free.sequences.flatten().tolist()) <= {0, *allowed.tolist()}
    step = model.decode_step

    def masked(tokens, state):
        logits = step(tokens, state)
        return torch.full_like(logits, -1e30).index_copy(1, allowed, logits[:, allowed])

    model.decode_step = masked
    expected = generate([model], **inputs, max_length=LENGTH, num_beams=num_beams)
    torch.testing.assert_close(forced.sequences, expected.sequences)
    torch.testing.assert_close(forced.scores, expected.scores, rtol=1e-5, atol=1e-6)


def test_a_forced_vocabulary_needs_the_end_token_and_known_ids():
    model, inputs = build_model(0), build_inputs()
    for ids in ([4, 5, 6], [1, 4, 30], [-1, 1, 4]):
        with pytest.raises(ValueError, match=r"allowed_ids: must lie in 0\.\.29 and hold the end token 1"):
            generate([model], **inputs, max_length=3, allowed_ids=torch.tensor(ids))
    with pytest.raises(ValueError, match="num_beams: 2 needs a vocabulary of twice as many, not 3"):
        generate([model], **inputs, max_length=3, num_beams=2, allowed_ids=torch.tensor([1, 4, 5]))
