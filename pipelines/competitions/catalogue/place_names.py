"""Place, language, currency and script names from English into eight languages: small, but truly multilingual.

The pairs are the translations of the ISO code lists that travel with pycountry (Debian's iso-codes, LGPL-2.1+). Many
are transliterations, some real translations. An English name stands on one side of the split only, in all languages:
else a test name would be known from a sister language. Exact match is averaged over the languages, so that those with
few entries (Russian, German) weigh as much as those with many.
"""

import gettext
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, hash_share, row_id, usage_of, write_tables
from pipelines.packages import find_package

LANGUAGES = ("uk", "hi", "hu", "fr", "de", "zh_CN", "ru", "ta")
# Places before languages and scripts: where domains disagree, the first translation is the one trained on.
DOMAINS = ("iso3166-1", "iso3166-2", "iso3166-3", "iso4217", "iso15924", "iso639-3", "iso639-5")
MAX_CHARACTERS = 40
TEST_SHARE = 0.1
SEPARATOR = " | "

Entries = Mapping[tuple[str, str], tuple[str, ...]]
"""(language, English) -> its translations, the preferred one first."""


def build_prompt(row: Mapping[str, str]) -> str:
    """The language as one piece, then the name: ">>uk<< Mdina"."""
    return f">>{row['language']}<< {row['english']}"


def prepare(folders: PreparationFolders) -> None:
    """Read pycountry's translations and write the competition, in about 10 s."""
    package, source = find_package("pycountry")
    write_tables(build_tables(collect_entries(read_translations(package))), folders, source=source)


def read_translations(package: Path) -> Iterable[tuple[str, str, str]]:
    """(language, English, translation) of every message that is translated, in a fixed order."""
    for language in LANGUAGES:
        for domain in DOMAINS:
            file = package / "locales" / language / "LC_MESSAGES" / f"{domain}.mo"
            with file.open("rb") as stream:
                messages = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            for english, translation in sorted(messages.items()):
                if english:  # the empty message holds the file's header
                    yield language, english, translation


def collect_entries(translations: Iterable[tuple[str, str, str]]) -> Entries:
    """Drop what is long or the same in both languages; gather several translations of one name."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for language, english, translation in translations:
        source, target = clean(english), clean(translation)
        if source != target and 0 < len(source) <= MAX_CHARACTERS and 0 < len(target) <= MAX_CHARACTERS:
            found.setdefault((language, source), {})[target] = None
    return {key: tuple(targets) for key, targets in found.items()}


def clean(text: str) -> str:
    """NFC, single spaces, no soft hyphens: what is invisible cannot be asked for in an exact match."""
    return " ".join(unicodedata.normalize("NFC", text).replace("\xad", "").split())


def build_tables(entries: Entries) -> EmbeddedTables:
    """Split by the English name and lay out the files; rows in an order that neither language nor alphabet gives."""
    rows = [(row_id(language, english), language, english, targets) for (language, english), targets in entries.items()]
    rows.sort()
    assert len({row[0] for row in rows}) == len(rows), "two names share an id: lengthen row_id"
    frame = pd.DataFrame(rows, columns=["id", "language", "english", "targets"])
    in_test = frame["english"].map(lambda name: hash_share(name, "place_names") < TEST_SHARE)
    train = frame[~in_test].assign(translation=lambda rows: rows["targets"].str[0]).drop(columns="targets")
    test = frame[in_test].drop(columns="targets")
    solution = test[["id", "language"]].assign(
        translation=frame["targets"].map(SEPARATOR.join), usage=test["english"].map(usage_of)
    )
    copies = _submission(test, test["english"])
    baselines = {"copy": copies, "nearest_neighbour": _nearest_neighbours(train, test)}
    return EmbeddedTables(train, test, copies, solution, baselines)


def _nearest_neighbours(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """The translation of the most similar English name, language by language."""
    from components.baselines.nearest_neighbour import NearestNeighbour

    answers: dict[str, str] = {}
    for language, asked in test.groupby("language"):
        known = train[train["language"] == language]
        model = NearestNeighbour().fit(known["english"].tolist(), known["translation"].tolist())
        answers.update(zip(asked["id"], model.predict(asked["english"].tolist()), strict=True))
    return _submission(test, test["id"].map(answers))


def _submission(test: pd.DataFrame, answers: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"id": test["id"], "translation": answers})


COMPETITION = Competition(
    name="place_names",
    title="Place names into eight languages",
    task="text_to_text",
    kaggle_slug="place-names",
    host="local",
    id_column="id",
    input_columns=("language", "english"),
    label_columns=("translation",),
    metric="exact_match",
    extra_metrics=("cer", "chrf"),
    metric_group="language",
    reference_separator=SEPARATOR,
    reserved_pieces=tuple(f">>{language}<<" for language in LANGUAGES),
    folds=FoldDefaults(name="holdout", valid_fraction=0.04, group_column="english"),
    build_prompt=build_prompt,
    prepare=prepare,
)
