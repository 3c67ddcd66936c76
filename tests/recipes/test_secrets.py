"""Secrets planted wherever one may leave them reach no record, no tracker and no artefact of a real run."""

import json
import sys
from pathlib import Path

import pandas as pd

from components.data.text.vocabulary import build_vocabulary
from pipelines.cli import main
from pipelines.redaction import REMOVED
from pipelines.runs.source.state import SourceState
from pipelines.submissions.ledger import Ledger

# Put together here, so that no scanner takes this file for a leak.
SHAPED = "KGAT_" + "0123456789abcdef" * 2
OF_THE_SOURCE = "hf_" + "aB3" * 10
OF_THE_ENVIRONMENT, OF_THE_FILE = "planted-in-a-variable", "planted-in-kaggle-json"
SECRETS = (SHAPED, OF_THE_SOURCE, OF_THE_ENVIRONMENT, OF_THE_FILE)


def test_planted_secrets_reach_no_record_and_no_tracker(workspace, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": "alice", "key": OF_THE_FILE}))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_KEY", OF_THE_ENVIRONMENT)
    patch = f"+TOKEN = '{OF_THE_SOURCE}'\n+KEY = '{OF_THE_FILE}'\n+OTHER = '{OF_THE_ENVIRONMENT}'\n"
    state = SourceState("c" * 40, "main", patch, "5" * 64)
    monkeypatch.setattr("pipelines.training.execution.read_source_state", lambda: state)
    # In the configuration, hence a parameter, an artefact and a word of the command: a path with a token in it.
    train = pd.read_csv(workspace.data_dir("place-names") / "train.csv", dtype=str, keep_default_na=False)
    texts = train.drop(columns="id").to_numpy().ravel().tolist()
    folder = tmp_path / SHAPED / OF_THE_ENVIRONMENT
    build_vocabulary(texts, folder, kind="character", size=400)
    (file,) = folder.glob("*.model")
    overrides = ["data.vocabulary=file", f"data.vocabulary_file={file}", "training.num_steps=4"]
    arguments = ["--root", str(workspace.root), "train", "smoke/mt5_adafactor", *overrides]
    monkeypatch.setattr(sys, "argv", ["podium", *arguments])
    main(arguments)
    main(["--root", str(workspace.root), "submit", "smoke/mt5_adafactor"])

    (record,) = Ledger(workspace.ledger).records()
    assert record.command[-2] == f"data.vocabulary_file={tmp_path}/{REMOVED}/{REMOVED}/{file.name}"
    assert record.diff.secrets_removed == 3
    (run,) = (path.parent for path in workspace.runs.glob("*/*/run.json"))
    assert run.joinpath("uncommitted.diff").read_text().count(REMOVED) == 3
    artefacts = sorted(path.name for path in workspace.root.glob("mlartifacts/*/*/artifacts/*") if path.is_file())
    assert {"config.yaml", "git.diff", "oof.parquet", "submission.csv"} <= set(artefacts)
    kept = [path for path in run.rglob("*") if path != run / "config.yaml"]  # which prediction has to read as it is
    told = [*kept, workspace.mlflow_db, *workspace.ledger.rglob("*"), *workspace.root.glob("mlartifacts/**/*")]
    told += workspace.local_host("place-names").rglob("*")
    assert [(path, secret) for path in told for secret in secrets_in(path)] == []
    assert secrets_in(run / "config.yaml") == [SHAPED, OF_THE_ENVIRONMENT], "else the test plants nothing"


def secrets_in(path: Path) -> list[str]:
    content = path.read_bytes() if path.is_file() else b""
    return [secret for secret in SECRETS if secret.encode() in content]
