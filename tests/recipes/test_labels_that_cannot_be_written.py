"""A run tells of labels that it cannot write before it trains, or does not begin."""

import pandas as pd
import pytest
from tiny_competition import install_competition

from components.data.text.vocabulary import build_vocabulary
from pipelines.cli import main
from pipelines.runs.record import CountedTexts
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

EXPERIMENT = """\
name: tiny
competition: tiny_task
model: {name: t5_from_scratch, d_model: 8, d_kv: 4, d_ff: 8, num_layers: 1, num_decoder_layers: 1}
data: {name: text, vocabulary: file, vocabulary_file: FILE, max_target_length: 12}
optimizer: {name: adamw, lr: 1e-3}
schedule: {name: constant}
folds: {name: holdout}
training: {num_steps: 2, num_threads: 1}
tracking: {name: jsonl}
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains on twenty rows of which some have braces, which the vocabulary lacks; returns the runs."""
    for name in ("SMOKE", "OVERFIT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    workspace = Workspace(tmp_path)
    install_competition(monkeypatch, tmp_path / "table", task="text_to_text", metric="exact_match", extra_metrics=())
    build_vocabulary(["text: red green"], tmp_path / "vocabulary", kind="character", size=40)
    workspace.experiments.mkdir()
    text = EXPERIMENT.replace("FILE", str(tmp_path / "vocabulary" / "spiece.model"))
    (workspace.experiments / "tiny.yaml").write_text(text)

    def run(num_braces):
        folder = workspace.data_dir("tiny-task")
        folder.mkdir(parents=True)
        frame = pd.DataFrame({"id": range(24), "text": ["red", "green"] * 12, "label": ["red", "green"] * 12})
        frame.loc[: num_braces - 1, "label"] = "{red}"
        frame[:20].to_csv(folder / "train.csv", index=False)
        frame[20:][["id", "text"]].to_csv(folder / "test.csv", index=False)
        frame[20:][["id", "label"]].to_csv(folder / "sample_submission.csv", index=False)
        main(["--root", str(workspace.root), "train", "tiny"])
        return [Run(path.parent) for path in workspace.runs.glob("tiny/*/run.json")]

    run.runs = workspace.runs
    return run


def test_some_are_told_on_the_screen_in_the_record_and_in_the_tracker(train, capsys):
    (run,) = train(2)
    said = capsys.readouterr().err
    note = "2 of 20 labels cannot be written with this vocabulary (id 0: '{red}' comes back as ' \u2047 red \u2047 ')"
    assert said.count(note) == 1
    assert said.index(note) < said.index("step 1")
    record = run.read_record()
    labels = record.labels.entries()
    assert labels.pop("note").startswith(note)
    assert labels == {"num_rows": 20, "num_unspellable": 2, "num_cut": 0}
    assert record.inputs == CountedTexts(num_rows=24, num_cut=0)
    tracked = "".join(path.read_text() for path in (run.path / "tracking").rglob("*.jsonl"))
    assert '"data/num_unspellable_labels"' in tracked
    assert '"data/num_cut_labels"' not in tracked


def test_nearly_all_end_the_run_before_it_begins(train, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(18)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("podium: ")]
    assert line == (
        "podium: tiny_task: 18 of 20 labels cannot be written with this vocabulary (id 0: '{red}' comes back as "
        "' \u2047 red \u2047 '); data.trim_vocabulary=true writes them; exact_match counts whole answers only"
    )
    assert not list(train.runs.rglob("*.*"))
