"""MultiNLI from the archive its owners publish, here with a few pairs of that form."""

import json
from zipfile import ZipFile

import pandas as pd
import pytest

from pipelines.competitions.catalogue import contradictory_my_dear_watson, multinli
from pipelines.competitions.competition import PreparationFolders
from pipelines.errors import PodiumError

PAIRS = [
    ("p1", "entailment", "A man eats.", "Someone eats."),
    ("p2", "-", "A man eats.", "A man dines."),
    ("p3", "contradiction", "A man eats.", "Nobody eats, \"ever\".\tNo."),
    ("p4", "neutral", "A man eats.", "He is hungry."),
    ("p5", "neutral", "A dog.", "A brown dog."),
]  # fmt: skip


def archive(folder, *, train=PAIRS, names=(multinli.TRAIN, multinli.TEST)):
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("pairID", "gold_label", "sentence1", "sentence2")
    with ZipFile(folder / multinli.ARCHIVE, "w") as files:
        for name, pairs in zip(names, (train, PAIRS[:3]), strict=True):
            lines = [json.dumps(dict(zip(keys, pair, strict=True)) | {"genre": "fiction"}) for pair in pairs]
            files.writestr(f"multinli_1.0/{name}", "\n".join(lines) + "\n")
    return PreparationFolders(folder, folder.parent / "local_host")


def test_the_archive_becomes_a_competition_without_its_undecided_pairs(tmp_path):
    folders = archive(tmp_path / "multinli")
    multinli.prepare(folders)
    train = multinli.COMPETITION.load_train(folders.data)
    assert train["id"].tolist() == ["p1", "p3", "p4", "p5"]
    assert train["label"].tolist() == ["0", "2", "1", "1"]
    assert train["hypothesis"][1] == 'Nobody eats, "ever".\tNo.'
    assert multinli.COMPETITION.load_test(folders.data)["id"].tolist() == ["p1", "p3"]
    solution = pd.read_csv(folders.local_host / "solution.csv", dtype=str)
    assert solution["label"].tolist() == ["0", "2"]
    assert pd.read_csv(folders.local_host / "baselines/commonest.csv", dtype=str)["label"].tolist() == ["1", "1"]


def test_both_stages_of_entailment_share_one_prompt_and_one_order_of_classes():
    stages = multinli.COMPETITION, contradictory_my_dear_watson.COMPETITION
    assert stages[0].build_prompt is stages[1].build_prompt
    assert stages[0].class_names == stages[1].class_names == ("0", "1", "2")
    assert stages[0].input_columns == stages[1].input_columns


def test_a_missing_broken_or_foreign_archive_is_named(tmp_path):
    folder = tmp_path / "multinli"
    folders = PreparationFolders(folder, tmp_path / "local_host")
    with pytest.raises(PodiumError, match=r"multinli_1.0.zip: missing; download it from https://"):
        multinli.prepare(folders)
    archive(folder, names=("other.jsonl", multinli.TEST))
    with pytest.raises(PodiumError, match=r"holds no multinli_1.0_train.jsonl"):
        multinli.prepare(folders)
    archive(folder, train=[("p1", "maybe", "A", "B")])
    with pytest.raises(PodiumError, match=r"train.jsonl line 1: unreadable .*maybe"):
        multinli.prepare(folders)
    (folder / multinli.ARCHIVE).write_bytes(b"PK cut")
    with pytest.raises(PodiumError, match="download it again"):
        multinli.prepare(folders)
    assert not (folder / "train.csv").exists()
