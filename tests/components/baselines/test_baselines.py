"""Classical baselines: EM against enumeration by hand, and tables and neighbours whose answers can be read off."""

from itertools import product

import numpy as np
import pytest

from components.baselines.alignment import ChunkTable, _batches, _best_chunks, _expected_counts, align
from components.baselines.letter_to_sound import LetterToSound
from components.baselines.nearest_neighbour import NearestNeighbour

# A small spelling: "sh" is SH, "ph" is F, "x" is K S, a final "e" is silent, "c" is S before "e" and "i", else K.
SPOKEN = {
    "ship": "SH I P", "shop": "SH O P", "fish": "F I SH", "sip": "S I P", "hop": "H O P", "hip": "H I P",
    "photo": "F O T O", "graph": "G R A F", "graft": "G R A F T", "pot": "P O T", "top": "T O P", "fox": "F O K S",
    "box": "B O K S", "fix": "F I K S", "tax": "T A K S", "cat": "K A T", "cot": "K O T", "city": "S I T Y",
    "cent": "S E N T", "came": "K A M", "cope": "K O P", "hope": "H O P", "ripe": "R I P", "rip": "R I P",
    "pace": "P A S", "race": "R A S", "ten": "T E N", "net": "N E T", "cam": "K A M",
}  # fmt: skip
WORDS, SOUNDS = list(SPOKEN), list(SPOKEN.values())


def test_a_chunk_is_none_one_or_two_symbols():
    table = ChunkTable(num_letters=2, num_symbols=3)
    symbols = np.array([[0, 2, 1]])
    singles, pairs = table.chunks_ending(symbols)
    assert table.symbols_of(0) == ()
    assert [table.symbols_of(chunk) for chunk in singles[0].tolist()] == [(0,), (2,), (1,)]
    assert [table.symbols_of(chunk) for chunk in pairs[0].tolist()] == [(0, 2), (2, 1)]
    np.testing.assert_allclose(table.start().sum(axis=1), 1.0)


def alignments(word, target, table):
    """Every way to give each letter none, one or two symbols, as rows of chunk ids."""
    for widths in product(range(3), repeat=len(word)):
        if sum(widths) == len(target):
            chunks, place = [], 0
            for width in widths:
                said = target[place : place + width]
                one = 1 + said[0] if said else 0
                chunks.append(one if width < 2 else 1 + table.base + said[0] * table.base + said[1])
                place += width
            yield chunks


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    table = ChunkTable(num_letters=3, num_symbols=4)
    probabilities = rng.random((3, table.size))
    words = [rng.integers(0, 3, size).tolist() for size in (1, 3, 3, 4, 3)]
    targets = [rng.integers(0, 4, size).tolist() for size in (2, 2, 6, 3, 0)]
    return table, probabilities, words, targets


def test_expected_counts_are_those_of_all_alignments_enumerated(small):
    table, probabilities, words, targets = small
    expected = np.zeros_like(probabilities)
    for word, target in zip(words, targets, strict=True):
        ways = list(alignments(word, target, table))
        weights = np.array([np.prod(probabilities[word, way]) for way in ways])
        for way, weight in zip(ways, weights / weights.sum(), strict=True):
            np.add.at(expected, (word, way), weight)
    counts = sum(_expected_counts(batch, probabilities, table) for batch in _batches(words, targets, 4))
    np.testing.assert_allclose(counts, expected, atol=1e-12)
    assert counts.sum() == pytest.approx(sum(map(len, words)))


def test_the_best_alignment_is_the_best_of_all_enumerated(small):
    table, probabilities, words, targets = small
    for batch in _batches(words, targets, 4):
        for row, found in zip(batch.rows, _best_chunks(batch, probabilities, table), strict=True):
            ways = alignments(words[row], targets[row], table)
            assert found.tolist() == max(ways, key=lambda way: np.prod(probabilities[words[row], way]))


def test_em_finds_which_letters_speak():
    letters = {letter: number for number, letter in enumerate(sorted(set("".join(WORDS))))}
    names = sorted({symbol for sound in SOUNDS for symbol in sound.split()})
    table = ChunkTable(len(letters), len(names))
    found = align(
        [[letters[letter] for letter in word] for word in WORDS],
        [[names.index(symbol) for symbol in sound.split()] for sound in SOUNDS],
        table,
    )

    def spoken(word):
        chunks = found[WORDS.index(word)].tolist()
        return [" ".join(names[symbol] for symbol in table.symbols_of(chunk)) for chunk in chunks]

    assert spoken("fox") == ["F", "O", "K S"]
    assert spoken("cope") == ["K", "O", "P", ""]
    assert spoken("race") == ["R", "A", "S", ""]


def test_too_many_symbols_for_a_word_are_not_aligned():
    assert align([[0], [0]], [[0, 0, 0], [0]], ChunkTable(1, 1))[0] is None
    with pytest.raises(ValueError, match="no pair could be aligned"):
        LetterToSound().fit(["w"], ["D AH B AH L Y UW"])


def test_the_table_knows_its_training_words_and_generalises_by_context():
    model = LetterToSound().fit(WORDS, SOUNDS)
    assert model.predict(WORDS) == SOUNDS
    assert model.predict(["tip", "mop", "pox", "cop"]) == ["T I P", "M O P", "P O K S", "K O P"]
    assert model.predict([]) == []


def test_radius_limits_how_far_it_looks():
    model = LetterToSound().fit(WORDS, SOUNDS)
    assert model.predict(["cent"]) == ["S E N T"]
    assert model.predict(["cent"], radius=0) == ["K N T"]  # most often c is K and e silent
    assert LetterToSound(radius=0).fit(WORDS, SOUNDS).predict(["cent"]) == ["K N T"]


def test_a_letter_never_seen_is_silent_and_ends_no_word():
    model = LetterToSound().fit(WORDS, SOUNDS)
    assert model.predict(["té", "é", ""]) == ["T", "", ""]


def test_the_widest_window_wins_and_the_commonest_chunk_of_it():
    # Alone, "a" is mostly A; at the start before "z" it is mostly O; between "b" and "z" it is E.
    words = ["ak", "al", "am", "an", "az", "az", "az", "bazz"]
    sounds = ["A K", "A L", "A M", "A N", "O Z", "O Z", "U Z", "B E Z Z"]
    model = LetterToSound(radius=2).fit(words, sounds)
    assert model.predict(["ab", "kaz", "baz", "az", "bazz"]) == ["A B", "K A Z", "B E Z", "O Z", "B E Z Z"]


def test_fitting_twice_gives_the_same_answers():
    unseen = ["phase", "coxy", "shape", "cider", "xeph"]
    first = LetterToSound().fit(WORDS, SOUNDS).predict(unseen)
    assert LetterToSound().fit(WORDS, SOUNDS).predict(unseen) == first


def test_the_nearest_neighbour_repeats_the_most_similar_texts_target():
    model = NearestNeighbour().fit(["San José", "San Juan", "North Korea", "Korean"], ["A", "B", "C", "D"])
    assert model.predict(["San Jose Province", "South Korea", "Koreans", "North Korea"]) == ["A", "C", "D", "C"]


def test_of_equally_near_neighbours_the_first_is_taken():
    model = NearestNeighbour().fit(["Alpha", "Beta", "Beta"], ["first", "second", "third"])
    assert model.predict(["Beta", "Qwx", ""]) == ["second", "first", "first"]


def test_more_texts_than_one_block_are_answered_in_order():
    names = [f"{number:03d}" * 2 for number in range(700)]
    model = NearestNeighbour(max_ngram=5).fit(names, names)
    assert model.predict(names[::-1]) == names[::-1]
