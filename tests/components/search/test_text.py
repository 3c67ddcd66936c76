"""Folding, terms, passages: what a searcher means, and what is shown of it."""

import pytest
from search_fakes import SIMPLIFIED

from components.search.passages import Highlighter, Piece, find_needles
from components.search.terms import list_terms
from components.search.text_folding import TextFolder, load_simplified

FOLDER = TextFolder(SIMPLIFIED)


def test_scripts_widths_and_capitals_fold_to_one():
    assert FOLDER.fold("ＡＢＣ１２３ 經濟") == FOLDER.fold("abc123 经济") == "abc123 经济"
    assert FOLDER.fold("ｶﾞﾗｽ") == "ガラス"
    assert FOLDER.fold("Straße") == "strasse"


@pytest.mark.parametrize("text", ["ＡＢＣ經", "ﬁnance", "İstanbul", "①㈱", "e\u0301", "🙂👩‍👩‍👧"])
def test_folding_twice_changes_nothing(text):
    once = FOLDER.fold(text)
    assert FOLDER.fold(once) == once


def test_each_folded_character_knows_where_it_comes_from():
    folded, origins = FOLDER.fold_with_origins("ﬁn經")
    assert (folded, list(origins)) == ("fin经", [0, 0, 1, 2])
    folded, origins = FOLDER.fold_with_origins("經Ａ")
    assert (folded, list(origins)) == ("经a", [0, 1])


def test_a_character_table_is_read_in_opencc_s_form(tmp_path):
    file = tmp_path / "TSCharacters.txt"
    file.write_text("# comment\n經\t经\n乾\t干 乾\n臺\t台\n台\t台\n", encoding="utf-8")
    assert load_simplified(file) == {"經": "经", "乾": "干", "臺": "台"}
    file.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"TSCharacters\.txt: no line of a character table"):
        load_simplified(file)


def test_words_give_letter_quadruples_and_chinese_gives_characters_and_pairs():
    assert list_terms("the city's") == ["the", "#<the", "#the>", "city", "#<cit", "#city", "#ity>"]
    assert list_terms("搜索引擎") == ["搜", "索", "引", "擎", "搜索", "索引", "引擎"]
    assert list_terms("火") == ["火"]
    assert list_terms("4月a_b") == ["4", "#<4>", "月", "a", "#<a>", "b", "#<b>"]
    assert list_terms(" 🙂 … ' _ \n") == []


def highlighter(query, **rarities):
    return Highlighter(query, FOLDER, rarity=lambda term: rarities.get(term, 3.0))


def test_matches_are_marked_in_the_text_as_it_was_written():
    assert highlighter("经济 gdp").mark("中國經濟 ＧＤＰ up") == [
        Piece("中國", False),
        Piece("經濟", True),
        Piece(" ", False),
        Piece("ＧＤＰ", True),
        Piece(" up", False),
    ]
    # A word is marked where it begins a word, so also in its plural; never in the middle of another.
    assert highlighter("rate").mark("rates crates") == [Piece("rate", True), Piece("s crates", False)]
    assert highlighter("the").mark("their the") == [Piece("their ", False), Piece("the", True)]
    assert find_needles("中国经济 a 火", FOLDER) == ["中国", "国经", "经济", "a", "火"]


def test_what_every_third_article_holds_is_marked_only_where_nothing_else_is_asked_for():
    text = "the bank"
    assert highlighter("the bank", the=0.2).mark(text) == [Piece("the ", False), Piece("bank", True)]
    assert highlighter("the", the=0.2).mark(text) == [Piece("the", True), Piece(" bank", False)]
    assert highlighter("the", the=0.0).mark(text) == [Piece("the bank", False)]


def test_the_passage_lies_around_the_rarest_matches_and_begins_with_a_sentence():
    text = "One bank. " * 40 + "Here stands the strike. " + "More bank text. " * 30
    pieces = highlighter("bank strike", bank=1.2, strike=5.0).best_passage(text, width=80)
    shown = "".join(piece.text for piece in pieces)
    assert Piece("strike", True) in pieces
    assert shown.startswith("…One bank. ")
    assert len(shown) <= 82
    assert highlighter("zebra").best_passage("short text") == [Piece("short text", False)]
    assert highlighter("zebra").best_passage("") == []


def test_a_passage_begins_with_a_whole_word():
    text = "considerably " * 30 + "strike " + "afterwards " * 30
    shown = "".join(piece.text for piece in highlighter("strike").best_passage(text, width=60))
    assert shown.startswith("…considerably ")
    assert "strike" in shown
