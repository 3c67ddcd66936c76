"""What a sentence encoder is trained on and by: losses by definition, pairs and windows, the tokenizer, the teacher."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from components.data.text.character_tokenizer import build_character_tokenizer
from components.data.text.groups import LONGEST, SHORTEST, ArticlePairs, TaughtTexts, TextGroupCollator
from components.losses.by_task import contrastive, similarity_distillation
from components.metrics.text import reciprocal_rank
from components.models.bert.checkpoint import BertArchitecture, BertEncoder, save_bert
from components.models.sentence.encoder import load_sentence_encoder
from components.models.sentence.model import SentenceModel
from components.models.sentence.wide import WIDE_FILE, WideEncoder, load_vectors_encoder, save_vectors_encoder
from components.search.onnx_encoder import OnnxEncoder
from components.search.onnx_export import export_encoder
from pipelines.competitions.catalogue.zh_news_titles import build_tables
from pipelines.competitions.sources.inews import Page
from pipelines.learners.teaching import obtain_vectors, taught_texts
from pipelines.runs.run import Run

TEXTS = ["北京 news：2018年的会议。", "南京iPhone发布会，2018年！", "会议 news"]


def unit_vectors(rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1)


# -- losses --


def test_contrastive_is_the_mean_of_both_directions_by_definition():
    left, right = unit_vectors(5, 3, 1), unit_vectors(5, 3, 2)
    wanted = []
    for ours, theirs in ((left, right), (right, left)):
        for row in range(5):
            likeness = torch.stack([ours[row] @ other for other in theirs]) / 0.1
            wanted.append(likeness.logsumexp(0) - likeness[row])
    torch.testing.assert_close(contrastive(left, right, temperature=0.1), torch.stack(wanted).mean())


def test_distillation_is_cross_entropy_over_the_other_texts_by_definition():
    vectors, teacher = unit_vectors(4, 3, 1), unit_vectors(4, 6, 2)
    wanted = []
    for row in range(4):
        others = [other for other in range(4) if other != row]
        ours = torch.stack([vectors[row] @ vectors[other] for other in others]) / 0.1
        theirs = torch.stack([teacher[row] @ teacher[other] for other in others]) / 0.2
        wanted.append(-(theirs.softmax(0) * ours.log_softmax(0)).sum())
    loss = similarity_distillation(vectors, teacher, temperature=0.1, teacher_temperature=0.2)
    torch.testing.assert_close(loss, torch.stack(wanted).mean())


def test_a_student_that_likens_as_its_teacher_does_has_nothing_to_learn():
    teacher = unit_vectors(6, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    student = (teacher @ rotation).requires_grad_()
    similarity_distillation(student, teacher, temperature=0.1, teacher_temperature=0.1).backward()
    assert float(student.grad.abs().max()) < 1e-12


def test_one_text_alone_teaches_nothing():
    vectors = unit_vectors(1, 3).requires_grad_()
    loss = similarity_distillation(vectors, unit_vectors(1, 5), temperature=0.1, teacher_temperature=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert not vectors.grad.any()


# -- tokenizer --


def pieces_of(tokenizer, text):
    return tokenizer.tokenizer.encode(text).tokens


def test_a_token_is_a_character_a_frequent_word_or_a_letter():
    tokenizer = build_character_tokenizer(TEXTS, size=100)
    assert pieces_of(tokenizer, "２０１８年的会议。") == ["[CLS]", "2018", "年", "[UNK]", "会", "议"]
    assert pieces_of(tokenizer, "NEWS iPhone") == ["[CLS]", "news", *["i", "##p", "##h", "##o", "##n", "##e"]]
    assert pieces_of(tokenizer, "！？…") == ["[CLS]"]
    assert pieces_of(tokenizer, "") == ["[CLS]"]


def test_the_vocabulary_depends_on_the_texts_and_not_on_their_order():
    pieces = [build_character_tokenizer(texts, size=79).tokenizer.get_vocab() for texts in (TEXTS, TEXTS[::-1])]
    assert pieces[0] == pieces[1]
    assert len(pieces[0]) == 79
    assert pieces[0]["[PAD]"] == 0


def test_a_size_without_room_for_letters_is_refused():
    with pytest.raises(ValueError, match="vocabulary size 75: 75 pieces"):
        build_character_tokenizer(TEXTS, size=75)


# -- examples --


def article_pairs(share):
    titles = [[1, 1000 + row] for row in range(20)]
    bodies = [[1, *range(row * 100 + 2, row * 100 + 2 + length)] for row, length in enumerate([90] * 19 + [10])]
    return ArticlePairs(titles, bodies, max_length=32, window_share=share, seed=7)


def test_windows_are_cut_out_of_where_they_stood():
    pairs = article_pairs(1.0)
    for row in range(19):
        window, rest = pairs[row]["texts"]
        assert window[0] == rest[0] == 1
        assert SHORTEST <= len(window) - 1 <= LONGEST
        assert window[1:] == list(range(window[1], window[-1] + 1))
        assert len(rest) == 32
        assert not {*window[1:]} & {*rest[1:]}
        touching = {window[1] - 1, window[-1] + 1} & {*rest}
        assert touching
        assert {*rest[1:]} < {*pairs.bodies[row]}
    # A body that one text holds is left whole
    assert pairs[19]["texts"] == [pairs.titles[19], pairs.bodies[19]]


def test_without_windows_a_title_stands_before_its_beginning():
    pairs = article_pairs(0.0)
    assert [pairs[row]["texts"] for row in range(20)] == [
        [title, body[:32]] for title, body in zip(pairs.titles, pairs.bodies, strict=True)
    ]


def test_an_epochs_pairs_are_a_function_of_seed_and_epoch():
    first, second = article_pairs(0.5), article_pairs(0.5)
    before = [first[row] for row in range(20)]
    first.begin_epoch(1)
    assert [first[row] for row in range(20)] != before
    first.begin_epoch(0)
    assert [first[row] for row in range(20)] == before == [second[row] for row in range(20)]


def test_the_collator_stacks_articles_and_numbers_or_teaches_them():
    collate = TextGroupCollator(pad_id=0)
    batch = collate([{"texts": [[1, 5], [1, 6, 7]]}, {"texts": [[1], [1, 8]]}])
    assert batch["input_ids"].tolist() == [[1, 5, 0], [1, 6, 7], [1, 0, 0], [1, 8, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["labels"].tolist() == [0, 0, 1, 1]
    vectors = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    data = TaughtTexts([[[1, 5], [1]], [[1], [1, 8]]], vectors)
    taught = collate([data[0], data[1]])
    assert taught["labels"].dtype == torch.float32
    assert taught["labels"].equal(torch.from_numpy(vectors.reshape(4, 3)).float())
    assert data.padding_keys() == [2, 2]


# -- model --


def small_model():
    torch.manual_seed(0)
    architecture = BertArchitecture(
        vocab_size=90, hidden_size=16, embedding_size=16, num_layers=2, num_heads=2, intermediate_size=24,
        max_positions=32, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    encoder = BertEncoder(architecture)
    encoder.initialise()
    return SentenceModel(encoder, temperature=0.1, teacher_temperature=0.2)


def test_labels_choose_the_loss():
    model, ids = small_model(), torch.randint(1, 90, (6, 5))
    mask = torch.ones_like(ids)
    vectors = model(ids, mask).logits
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6))
    pairs = model(ids, mask, labels=torch.tensor([0, 0, 1, 1, 2, 2])).loss
    torch.testing.assert_close(pairs, contrastive(vectors[::2], vectors[1::2], temperature=0.1))
    teacher = unit_vectors(6, 4).float()
    taught = model(ids, mask, labels=teacher).loss
    wanted = similarity_distillation(vectors, teacher, temperature=0.1, teacher_temperature=0.2)
    torch.testing.assert_close(taught, wanted)


def test_transformers_reads_what_is_kept(tmp_path):
    model, tokenizer = small_model(), build_character_tokenizer(TEXTS, size=90)
    save_bert(model.encoder, tmp_path)
    tokenizer.save(tmp_path)
    theirs, batch = AutoModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)(TEXTS[:1])
    assert batch["input_ids"] == tokenizer.encode(TEXTS[:1], max_length=32).ids
    ids = torch.tensor(batch["input_ids"])
    with torch.inference_mode():
        hidden = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        ours = model.eval()(ids, torch.ones_like(ids)).logits
    torch.testing.assert_close(ours, functional.normalize(hidden.mean(1), dim=-1), atol=1e-5, rtol=0)


def wide_encoder(max_positions=6):
    torch.manual_seed(0)
    architecture = BertArchitecture(
        vocab_size=90, hidden_size=16, embedding_size=16, num_layers=2, num_heads=2, intermediate_size=24,
        max_positions=max_positions, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    encoder = WideEncoder(BertEncoder(architecture), 40)
    encoder.initialise()
    return encoder.eval()


def test_a_wide_vector_is_all_words_and_what_the_layers_read_of_the_beginning():
    encoder, ids = wide_encoder(), torch.randint(1, 90, (3, 11))
    mask = (torch.arange(11) < torch.tensor([[11], [4], [8]])).long()
    with torch.inference_mode():
        vectors = encoder(ids * mask, mask)
        for row, length in enumerate((11, 4, 8)):
            words = ids[row, :length]
            bag = functional.normalize(encoder.bag.weight[words].sum(0), dim=-1)
            read = encoder.trunk(words[None, :6], torch.ones(1, min(length, 6))).hidden.mean(0)
            torch.testing.assert_close(vectors[row], bag + encoder.lift.weight @ read)


def test_a_wide_encoder_is_a_bert_s_folder_with_a_file_more(tmp_path):
    encoder, tokenizer = wide_encoder(), build_character_tokenizer(TEXTS, size=90)
    save_vectors_encoder(encoder, tmp_path)
    tokenizer.save(tmp_path)
    loaded = load_vectors_encoder(tmp_path)
    assert isinstance(loaded, WideEncoder)
    state = loaded.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in encoder.state_dict().items())
    ids = torch.randint(1, 90, (2, 6))
    with torch.inference_mode():
        theirs = AutoModel.from_pretrained(tmp_path).eval()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(theirs, encoder.trunk(ids).padded(), atol=1e-5, rtol=0)
    texts = [*TEXTS, "", "北京" * 30]
    expected = load_sentence_encoder(tmp_path, max_length=20).encode(texts).numpy()
    export_encoder(tmp_path, tmp_path / "exported", name="wide", max_length=20)
    exported = OnnxEncoder(tmp_path / "exported")
    assert exported.dimension == expected.shape[1] == 40
    np.testing.assert_allclose(exported.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([exported.encode([text]) for text in texts]), expected, atol=1e-5)


def test_parts_of_two_encoders_are_refused(tmp_path):
    save_vectors_encoder(wide_encoder(), tmp_path / "wide")
    other = wide_encoder()
    other.lift = torch.nn.Linear(8, 40, bias=False)
    save_vectors_encoder(other, tmp_path / "other")
    (tmp_path / "wide" / WIDE_FILE).write_bytes((tmp_path / "other" / WIDE_FILE).read_bytes())
    with pytest.raises(ValueError, match=r"lift.weight is \[40, 8\], but config.json asks for \[40, 16\]"):
        load_vectors_encoder(tmp_path / "wide")


# -- competition and teacher --


def test_a_right_answer_counts_by_its_rank():
    targets, predictions = [["a"], ["b"], ["c"], ["d"]], ["a b", "a b", "x", "a b c d"]
    assert reciprocal_rank(targets, predictions, depth=10) == (1 + 1 / 2 + 0 + 1 / 4) / 4
    assert reciprocal_rank(targets, predictions, depth=1) == 1 / 4


def test_titles_and_bodies_of_the_test_stand_apart_and_the_solution_joins_them():
    pages = [Page(f"标题{n}", f"标题{n} 这是第{n}篇文章的内容", f"这是第{n}篇文章的内容", 0) for n in range(30)]
    tables = build_tables(pages[:10], pages[10:])
    assert len(tables.train) == 10
    assert tables.train["id"].equals(tables.train["article"])
    assert not tables.train["body"].str.contains("标题").any()
    held = dict(zip(tables.test["id"], tables.test["body"], strict=True))
    numbers = tables.test["title"].str.removeprefix("标题").tolist()
    assert [held[row] for row in tables.solution["article"]] == [f"这是第{n}篇文章的内容" for n in numbers]
    assert sorted(tables.solution["article"]) == sorted(tables.test["id"])
    moved = sum(row != answer for row, answer in zip(tables.solution["id"], tables.solution["article"], strict=True))
    assert moved >= 15
    assert tables.baselines["bm25"]["article"].str.split().str.len().eq(10).all()


class CountingTeacher:
    """Vectors of a text's length, and how many texts it was asked for."""

    name, dimension, fingerprint = "counting", 2, "1"

    def __init__(self):
        self.num_texts = 0

    def encode(self, texts):
        self.num_texts += len(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_a_teacher_is_asked_once_for_the_same_texts(tmp_path):
    texts = taught_texts(["r1", "r2"], ["标题", "题"], ["内" * 200, "容"], num_windows=2)
    assert [len(text) for text in texts[0][:2]] == [2, 100]
    assert texts[1] == ["题", "容", "容", "容"]
    assert texts == taught_texts(["r1", "r2"], ["标题", "题"], ["内" * 200, "容"], num_windows=2)
    teacher = CountingTeacher()
    for experiment, run in (("one", "a"), ("one", "a"), ("two", "b")):
        folder = tmp_path / experiment / run
        folder.mkdir(parents=True, exist_ok=True)
        vectors = obtain_vectors(teacher, texts, Run(folder))
        assert vectors.shape == (2, 4, 2)
        assert vectors[:, :, 0].tolist() == [[float(len(text)) for text in group] for group in texts]
        assert len(list((folder / "teacher").iterdir())) == 1
    assert teacher.num_texts == 8
