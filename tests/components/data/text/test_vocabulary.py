"""Vocabularies: what goes in comes out, the same corpus gives the same bytes, and T5's ids stand where T5 has them."""

import hashlib
import io
from pathlib import Path

import pytest
import sentencepiece

from components.data.text.vocabulary import VOCABULARY_KINDS, Vocabulary, build_vocabulary, load_vocabulary

NAMES = {
    "uk": ["Мдіна", "Північна Македонія", "Київ", "Острів Різдва", "Чернівецька область"],
    "hi": ["ज़ुलू", "अब्खाज़ियन्", "नई दिल्ली", "क्र्रेज़े", "उत्तर प्रदेश"],
    "ta": ["தமிழ்நாடு", "பிரிட்டிச் கொலம்பியா", "மதினா", "சென்னை"],
    "zh_CN": ["黑龙江省", "阿拉伯语（纳斯塔利克）", "奥果韦－洛洛省", "北京"],
    "fr": ["Île-de-France", "Côte d’Ivoire", "Provence-Alpes-Côte d’Azur"],
}
RESERVED = [f">>{language}<<" for language in NAMES]
PAIRS = [(language, f"{a} {b}") for language, names in NAMES.items() for a in names for b in names]
CORPUS = [text for language, name in PAIRS for text in (f">>{language}<< Mdina", name)]
SIZES = {"unigram": 395, "bpe": 395, "character": 1000, "word": 1000}


@pytest.fixture(params=VOCABULARY_KINDS)
def vocabulary(request, tmp_path):
    return build_vocabulary(CORPUS, tmp_path, kind=request.param, size=SIZES[request.param], reserved=RESERVED)


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_kind_returns_the_corpus_exactly_in_every_script(vocabulary):
    assert vocabulary.decode(vocabulary.encode(CORPUS)) == CORPUS


def test_ids_follow_t5(vocabulary):
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert all(row[-1] == 1 and 0 not in row for row in vocabulary.encode(CORPUS))
    assert max(max(row) for row in vocabulary.encode(CORPUS)) < vocabulary.size


def test_a_reserved_piece_is_one_id(vocabulary):
    languages = vocabulary.encode([f"{piece} Mdina" for piece in RESERVED], add_eos=False)
    shared = set(languages[0]).intersection(*languages[1:])
    assert [len(set(row) - shared) for row in languages] == [1] * len(RESERVED)
    assert [min(set(row) - shared) for row in languages] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", VOCABULARY_KINDS)
def test_training_twice_gives_the_same_bytes(kind, tmp_path):
    for folder in ("a", "b"):
        build_vocabulary(iter(CORPUS), tmp_path / folder, kind=kind, size=SIZES[kind], reserved=RESERVED)
    assert digest(tmp_path / "a" / "spiece.model") == digest(tmp_path / "b" / "spiece.model")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["spiece.model"]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "text", ["🎉 ☃", " leading", "trailing ", "two  spaces", "   ", "tab\tand\nline", "e\u0301\u200d", ""]
)
def test_byte_fallback_leaves_nothing_unknown(kind, text, tmp_path):
    vocabulary = build_vocabulary(CORPUS, tmp_path, kind=kind, size=395)
    ids = vocabulary.encode([text])
    assert vocabulary.unk_id not in ids[0]
    assert vocabulary.decode(ids) == [text]


def test_characters_are_one_id_each_and_unseen_ones_unknown(tmp_path):
    vocabulary = build_vocabulary(["abc", "cab"], tmp_path, kind="character", size=100)
    assert [len(ids) for ids in vocabulary.encode(["abc", "a"], add_eos=False)] == [3, 1]
    assert vocabulary.encode(["x"]) == [[2, 1]]


def test_words_are_one_id_each_wherever_they_stand(tmp_path):
    vocabulary = build_vocabulary(["m d i n a", "M D IY N AH"], tmp_path, kind="word", size=100)
    assert vocabulary.size == 3 + 10
    (first,), (middle,) = vocabulary.encode(["m"], add_eos=False), vocabulary.encode(["a m"], add_eos=False)
    assert middle[1] == first[0]


def test_truncation_keeps_the_end_of_sequence(vocabulary):
    whole = vocabulary.encode([CORPUS[1]])[0]
    assert vocabulary.encode([CORPUS[1]], max_length=2) == [[whole[0], 1]]
    assert vocabulary.encode([CORPUS[1]], max_length=2, add_eos=False) == [whole[:2]]
    assert vocabulary.encode([CORPUS[1]], max_length=len(whole)) == [whole]
    with pytest.raises(ValueError, match="max_length=1 leaves no room for text; use at least 2"):
        vocabulary.encode(["x"], max_length=1)


def test_decode_stops_at_the_end_and_skips_padding_and_rows_beyond_the_vocabulary(vocabulary):
    ids = vocabulary.encode(["Київ"], add_eos=False)[0]
    generated = [vocabulary.pad_id, *ids, vocabulary.size, vocabulary.size + 11, vocabulary.eos_id, *ids]
    assert vocabulary.decode([generated, [], [vocabulary.eos_id]]) == ["Київ", "", ""]


def test_saved_and_loaded_it_is_the_same_file(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "run" / "vocabulary")
    assert digest(tmp_path / "run" / "vocabulary" / "spiece.model") == digest(tmp_path / "spiece.model")
    assert load_vocabulary(tmp_path / "run" / "vocabulary").encode(CORPUS) == vocabulary.encode(CORPUS)


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_published_file_names_are_found(name, tmp_path):
    build_vocabulary(CORPUS, tmp_path / "built", kind="unigram", size=395)
    (tmp_path / name).write_bytes((tmp_path / "built" / "spiece.model").read_bytes())
    assert load_vocabulary(tmp_path).size == 395
    assert load_vocabulary(tmp_path / name).size == 395


def test_what_cannot_serve_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no vocabulary here; looked for spiece\.model, sentencepiece\.bpe"):
        load_vocabulary(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"spiece\.model is not a sentencepiece model"):
        load_vocabulary(tmp_path)
    without_padding = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=without_padding, vocab_size=140, minloglevel=2
    )
    (tmp_path / "spiece.model").write_bytes(without_padding.getvalue())
    with pytest.raises(ValueError, match="has no padding"):
        load_vocabulary(tmp_path)


def test_impossible_sizes_say_what_would_work(tmp_path):
    with pytest.raises(ValueError, match=r"size 50000 is more than this corpus fills; use at most (\d+)") as too_high:
        build_vocabulary(CORPUS, tmp_path, kind="unigram", size=50_000)
    most = int(str(too_high.value).rsplit(" ", 1)[1])
    assert build_vocabulary(CORPUS, tmp_path, kind="unigram", size=most).size == most
    with pytest.raises(
        ValueError, match=r"size 270 cannot hold the corpus's characters; use at least (\d+)"
    ) as too_low:
        build_vocabulary(CORPUS, tmp_path, kind="bpe", size=270)
    least = int(str(too_low.value).rsplit(" ", 1)[1])
    assert build_vocabulary(CORPUS, tmp_path, kind="bpe", size=least + 5).size == least + 5
    with pytest.raises(ValueError, match="kind 'wordpiece' is unknown; use one of unigram, bpe, character, word"):
        build_vocabulary(CORPUS, tmp_path, kind="wordpiece", size=100)
    with pytest.raises(ValueError, match="empty corpus"):
        build_vocabulary(["", ""], tmp_path, kind="unigram", size=100)


def test_a_failed_training_leaves_the_file_that_was_there(tmp_path):
    build_vocabulary(CORPUS, tmp_path, kind="unigram", size=395)
    before = digest(tmp_path / "spiece.model")
    with pytest.raises(ValueError, match="more than this corpus fills"):
        build_vocabulary(CORPUS, tmp_path, kind="unigram", size=50_000)
    assert digest(Path(tmp_path / "spiece.model")) == before


def test_it_survives_the_trip_to_a_worker_process(vocabulary):
    import pickle

    copy = pickle.loads(pickle.dumps(vocabulary))
    assert isinstance(copy, Vocabulary)
    assert copy.encode(CORPUS) == vocabulary.encode(CORPUS)
