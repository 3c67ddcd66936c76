"""MultiNLI (arXiv:1704.05426): 392,702 English pairs of a premise and a hypothesis, the first stage of a fine-tuning.

Its owners give the files freely, but no package carries them: `multinli_1.0.zip` is put into the data folder by hand.
The matched development set, whose labels are known, serves as the test; the local host scores it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pandas as pd

from components.files.digests import file_digest
from pipelines.competitions.competition import Competition, FoldDefaults, PreparationFolders
from pipelines.competitions.embedded import EmbeddedTables, usage_of, write_tables
from pipelines.competitions.sources.nli import CLASS_NAMES, CONTRADICTION, ENTAILMENT, NEUTRAL, build_prompt
from pipelines.errors import PodiumError

ARCHIVE = "multinli_1.0.zip"
SOURCE = "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip"
TRAIN, TEST = "multinli_1.0_train.jsonl", "multinli_1.0_dev_matched.jsonl"
LABELS = {"entailment": ENTAILMENT, "neutral": NEUTRAL, "contradiction": CONTRADICTION}
UNDECIDED = "-"  # the annotators found no majority; the pair has no label


def prepare(folders: PreparationFolders) -> None:
    """Read the archive and write the competition."""
    archive = folders.data / ARCHIVE
    if not archive.is_file():
        raise PodiumError(f"{archive}: missing; download it from {SOURCE} into that folder")
    try:
        with ZipFile(archive) as files:
            train, test = (pd.DataFrame(read_pairs(files, name, archive)) for name in (TRAIN, TEST))
    except BadZipFile as error:
        raise PodiumError(f"{archive}: {error}; download it again from {SOURCE}") from error
    write_tables(build_tables(train, test), folders, source=f"{ARCHIVE} {file_digest(archive)[:16]}")


def read_pairs(files: ZipFile, name: str, archive: Path) -> Iterator[dict[str, str]]:
    """The labelled pairs of one file of the archive, wherever in it the file lies."""
    member = next((path for path in files.namelist() if path.rpartition("/")[2] == name), None)
    if member is None:
        raise PodiumError(f"{archive}: holds no {name}; it is not the archive of {SOURCE}")
    with files.open(member) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                pair = json.loads(line)
                label = pair["gold_label"]
                if label != UNDECIDED:
                    yield {
                        "id": pair["pairID"],
                        "premise": pair["sentence1"],
                        "hypothesis": pair["sentence2"],
                        "label": LABELS[label],
                    }
            except (ValueError, KeyError) as error:
                raise PodiumError(f"{archive}: {name} line {number}: unreadable ({error!r})") from error


def build_tables(train: pd.DataFrame, test: pd.DataFrame) -> EmbeddedTables:
    """Training and test pairs as a competition's files; the baseline answers with the commonest class."""
    sample = pd.DataFrame({"id": test["id"], "label": ENTAILMENT})
    solution = test[["id", "label"]].assign(usage=test["id"].map(usage_of))
    commonest = sample.assign(label=train["label"].mode().iloc[0])
    return EmbeddedTables(train, test.drop(columns="label"), sample, solution, {"commonest": commonest})


COMPETITION = Competition(
    name="multinli",
    title="MultiNLI, matched",
    task="multiclass",
    kaggle_slug="multinli",
    host="local",
    id_column="id",
    input_columns=("premise", "hypothesis"),
    label_columns=("label",),
    class_names=CLASS_NAMES,
    metric="accuracy",
    folds=FoldDefaults(name="holdout", valid_fraction=0.02),
    build_prompt=build_prompt,
    prepare=prepare,
)
