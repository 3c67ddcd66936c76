"""Every command that writes, on a disk that is full and in a checkout that may not be written to: one line, exit 2."""

import shutil

import pytest
from podium_processes import only_run
from refusing_disk import fill_disk, forbid_writing, obey_modes, podium
from tiny_competition import write_lines

from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

QUICK = ["data.vocabulary=character", "tracking.name=jsonl", "training.num_steps=3", "training.eval_every_steps=3"]
COMMANDS = {
    "train, step by step": ["train", "smoke/mt5_adafactor", *QUICK],
    "train, a baseline": ["train", "bbc_headlines_linear", "tracking.name=none"],
    "train, with MLflow": ["train", "bbc_headlines_linear", "tracking.name=mlflow"],
    "resume": ["resume", "smoke/mt5_adafactor"],
    "find-lr": ["find-lr", "smoke/mt5_adafactor", *QUICK],
    "predict": ["predict", "bbc_headlines_linear"],
    "submit": ["submit", "bbc_headlines_linear"],
    "data prepare": ["data", "prepare", "cmudict_g2p", "--force"],
    "lock": ["lock"],
    "new experiment": ["new", "experiment", "abc", "--from", "mt5_adafactor"],
    "new competition": ["new", "competition", "refused-table"],
    "tracking prepare": ["tracking", "prepare"],
}


@pytest.fixture(scope="module")
def made(template, tmp_path_factory):
    """The miniature checkout with a finished run, an unfinished one, and the files of a competition."""
    workspace = Workspace(tmp_path_factory.mktemp("made") / "checkout")
    shutil.copytree(template, workspace.root)
    main(["--root", str(workspace.root), *COMMANDS["train, step by step"]])
    run = only_run(workspace)
    Run(run).update_record(status="interrupted")
    (run / "fold0" / "result.json").unlink()
    write_lines(workspace.data_dir("refused-table") / "train.csv", "id,size,label", "a,1,0", "b,2,1", "c,3,0", "d,4,1")
    write_lines(workspace.data_dir("refused-table") / "test.csv", "id,size", "e,1", "f,2")
    write_lines(workspace.data_dir("refused-table") / "sample_submission.csv", "id,label", "e,0.5", "f,0.5")
    main(["--root", str(workspace.root), *COMMANDS["train, a baseline"]])
    (finished,) = (workspace.runs / "bbc_headlines_linear").iterdir()
    write_lines(finished / "fold0" / "resume" / "step-00000001" / "state.json", "{}")
    return workspace.root


@pytest.fixture
def checkout(made, tmp_path):
    shutil.copytree(made, tmp_path / "checkout")
    return Workspace(tmp_path / "checkout")


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def check_refused(checkout, words, before, reason):
    held = files(checkout.root)
    code, said = podium(checkout.root, words, before=before)
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("podium: ")
    assert reason in last
    assert code == 2
    left = files(checkout.root)
    assert {path for path in held.keys() | left.keys() if left.get(path) != held.get(path)} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(checkout, command):
    # sqlite has no other words for it.
    reason = "disk I/O error" if command == "tracking prepare" else "File too large"
    check_refused(checkout, COMMANDS[command], fill_disk, reason)


@pytest.mark.parametrize("command", [*COMMANDS, "runs prune"])
def test_a_checkout_that_may_not_be_written_to(checkout, command):
    permit = forbid_writing(checkout.root)
    try:
        check_refused(checkout, COMMANDS.get(command) or command.split(), obey_modes, "Permission denied")
    finally:
        permit()
