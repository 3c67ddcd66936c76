"""What a user can get wrong: one clear line on stderr, exit code 2, and nothing half-written."""

import os
import shutil
import subprocess

import pytest

from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.runs.source.state import SourceState
from pipelines.workspace import Workspace

QUICK = ["tracking.name=none", "data.vocabulary=character", "training.num_threads=1"]


def refused(workspace, capsys, *arguments):
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["--root", str(workspace.root), *arguments])
    assert exit_.value.code == 2
    _, mark, message = capsys.readouterr().err.strip().rpartition("podium: ")
    assert mark
    return message


def train(workspace, *overrides):
    main(["--root", str(workspace.root), "train", "smoke/mt5_adafactor", *QUICK, *overrides])


def refused_training(workspace, capsys, *overrides, experiment="smoke/mt5_adafactor"):
    before = sorted(workspace.runs.rglob("*"))
    message = refused(workspace, capsys, "train", experiment, *QUICK, *overrides)
    left = [path for path in sorted(workspace.runs.rglob("*")) if path not in before and path.is_file()]
    assert left == []
    return message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.num_epoch=3"], ["training.num_epoch", "did you mean num_epochs"]),
        (["optimizer.lr=fast"], ["optimizer.lr", "fast", "number"]),
        (["training.batch_size=0"], ["training.batch_size", "0", "1 or more"]),
        (["optimizer.name=adam"], ["optimizer.name", "adam", "adamw"]),
        (["fold=7"], ["fold", "7", "fold 0"]),
        (["lr"], ["lr", "no value"]),
        (["data.vocabulary=unigram", "data.vocabulary_size=20"], ["vocabulary", "20", "at least"]),
        (["model.name=t5_pretrained", "model.checkpoint=/nowhere", "data.vocabulary=checkpoint"], ["/nowhere"]),
    ],
)
def test_a_wrong_override_names_key_value_and_cure(workspace, capsys, overrides, words):
    message = refused_training(workspace, capsys, *overrides)
    for word in words:
        assert word in message


def test_an_unknown_experiment_lists_the_known_ones(workspace, capsys):
    message = refused(workspace, capsys, "train", "mt5_adafacto")
    assert "did you mean mt5_adafactor?" in message
    message = refused(workspace, capsys, "train")
    assert "t5_v1_1_adafactor" in message


def test_a_kaggle_competition_without_its_files_says_how_to_get_them(workspace, capsys):
    message = refused(workspace, capsys, "train", "mt5_watson")
    assert "podium data download contradictory-my-dear-watson" in message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("english", "englisch", 1), ["train.csv", "english"]),
        (lambda text: text + text.splitlines()[1] + "\n", ["train.csv", "column id", "must be unique"]),
        (lambda text: "", ["train.csv", "empty"]),
    ],
)
def test_a_damaged_csv_names_file_and_row(workspace, capsys, damage, words):
    """Once the files have been changed on purpose their digests no longer guard them."""
    folder = workspace.data_dir("place-names")
    path = folder / "train.csv"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    message = refused_training(workspace, capsys)
    assert "train.csv" in message
    assert "--force" in message  # a prepared file that changed is found before it is read
    from pipelines.competitions.loading import load_competition
    from pipelines.errors import PodiumError

    with pytest.raises(PodiumError) as error:
        load_competition("place_names").load_train(folder)
    for word in words:
        assert word in str(error.value)


def test_an_unreadable_checkpoint_is_named(workspace, capsys):
    train(workspace)
    (weights,) = workspace.runs.glob("*/*/fold0/checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    before = (weights.parents[3] / "submission.csv").read_bytes()
    message = refused(workspace, capsys, "predict", "smoke/mt5_adafactor")
    assert "model.safetensors" in message
    assert (weights.parents[3] / "submission.csv").read_bytes() == before


def test_a_run_of_another_competition_is_refused(workspace, capsys, tmp_path):
    train(workspace)
    (record,) = workspace.runs.glob("*/*/run.json")
    data = str(workspace.data_dir("cmudict-g2p"))
    message = refused(workspace, capsys, "predict", "smoke/mt5_adafactor", "--data-dir", data)
    assert "test.csv" in message
    assert "language" in message
    Run(record.parent).update_record(competition="cmudict_g2p")
    message = refused(workspace, capsys, "predict", "--run", record.parent.name)
    assert "belong to different runs" in message


def test_data_that_changed_since_are_named_at_resume(workspace, capsys):
    train(workspace)
    (record,) = workspace.runs.glob("*/*/run.json")
    Run(record.parent).update_record(status="interrupted")
    test_file = workspace.data_dir("place-names") / "test.csv"
    test_file.write_bytes(test_file.read_bytes() + b"\n")
    message = refused(workspace, capsys, "resume", "smoke/mt5_adafactor")
    assert "test.csv: changed since" in message


def test_what_cannot_be_resumed_or_submitted_says_what_to_do(workspace, capsys):
    assert "make experiment EXP=smoke/mt5_adafactor" in refused(workspace, capsys, "resume", "smoke/mt5_adafactor")
    assert "run it first" in refused(workspace, capsys, "submit", "smoke/mt5_adafactor")
    train(workspace)
    (record,) = workspace.runs.glob("*/*/run.json")
    assert "finished already" in refused(workspace, capsys, "resume", "--run", record.parent.name)


@pytest.fixture
def small_disk(template, tmp_path):
    """The miniature checkout with its runs on a file system of 1 MiB."""
    shutil.copytree(template, tmp_path / "checkout")
    workspace = Workspace(tmp_path / "checkout")
    workspace.runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(workspace.runs)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield workspace
    subprocess.run(["umount", "--lazy", str(workspace.runs)], check=True)


def test_a_disk_too_small_is_foreseen(small_disk, capsys):
    message = refused(small_disk, capsys, "train", "smoke/mt5_adafactor", *QUICK)
    assert "B free, but this run may write " in message
    assert "podium runs prune" in message
    assert list(small_disk.runs.rglob("*.partial")) == []


def test_a_disk_that_fills_up_on_the_way_leaves_a_run_that_resumes(small_disk, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.learners.neural.check_disk", lambda folder, num_bytes: None)
    # Without the developer's uncommitted changes in the run directory, whose size would decide when the disk is full.
    monkeypatch.setattr("pipelines.training.execution.read_source_state", lambda: SourceState(None, None, "", "0" * 64))
    filler = small_disk.runs / "filler"
    filler.write_bytes(b"x" * 800_000)  # the first resume point fits, the checkpoint after it does not
    message = refused(small_disk, capsys, "train", "smoke/mt5_adafactor", *QUICK)
    assert "No space left on device" in message
    assert list(small_disk.runs.rglob("*.partial")) == []
    assert len(list(small_disk.runs.glob("*/*/fold0/resume/step-*"))) == 1
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk.runs)], check=True)
    main(["--root", str(small_disk.root), "resume", "smoke/mt5_adafactor"])
    (submission,) = small_disk.runs.glob("*/*/submission.csv")
    assert submission.stat().st_size > 0
