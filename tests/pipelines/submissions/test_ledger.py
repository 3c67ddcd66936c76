"""One record per submission: whole, appended, never rewritten, without secrets, and found again by its ref."""

import hashlib
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.redaction import REMOVED
from pipelines.runs.index import load_record
from pipelines.submissions.ledger import Ledger, describe_kernel, enter_submission, ledger_tags
from pipelines.submissions.submit import submit
from pipelines.workspace import Workspace

RUN = "20261121-100000-bbbb"
TOKEN = "KGAT_" + "0123456789abcdef" * 2


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "checkout")


def make_trained_run(workspace, run=RUN, **manifest):
    """A run with one fold, its weights and a shared vocabulary, and all that is of no use to a prediction."""
    folder = make_run(workspace, run, config={"name": "first_try"}, submission=("id,label", "a,1"), **manifest)
    write_lines(folder / "fold0" / "result.json", '{"checkpoint": "checkpoints/step-00000002"}')
    write_lines(folder / "fold0" / "checkpoints" / "step-00000001" / "model.safetensors", "older weights")
    best = folder / "fold0" / "checkpoints" / "step-00000002" / "model.safetensors"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"w" * 200_000)
    write_lines(folder / "vocabulary" / "spiece.model", "pieces")
    for name in ("fold0/resume/step-00000002/state.json", "fold0/history.jsonl", "fold1/history.jsonl"):
        write_lines(folder / name, "{}")
    write_lines(folder / "images.json", "{}")
    for name in (
        "cache/images.npy",
        "folds.csv",
        "tracking/tags.json",
        "figures/folds.png",
        "oof.parquet",
        "init/model.safetensors",
    ):
        write_lines(folder / name, "{}")
    return folder


def entry_of(folder, ref=7, **changes):
    return {
        "time": "2026-11-21T12:00:00+00:00",
        "host": "local",
        "competition": "tiny_task",
        "ref": ref,
        "description": "as it is",
        "sha256": digest((folder / "submission.csv").read_bytes()),
        "status": "COMPLETE",
        "public": {"auc": 0.5},
    } | changes


def test_a_record_joins_all_that_went_in(workspace):
    manifest = {
        "command": ["podium", "train", "first_try"],
        "commit": "c" * 40,
        "dirty": True,
        "source_sha256": "5" * 64,
        "data_sha256": {"train.csv": "d" * 64},
        "folds_sha256": "f" * 64,
        "versions": {"torch": "2.14.1"},
        "machine": {"processor": "x", "torch_threads": 2},
        "seed": 3,
    }
    folder = make_trained_run(workspace, **manifest)
    (folder / "uncommitted.diff").write_bytes(b"a patch\r\n")
    record = enter_submission(workspace, load_record(folder), entry_of(folder))
    assert record["ref"] == "local:tiny_task:7"
    for name in ("command", "commit", "source_sha256", "data_sha256", "folds_sha256", "versions", "machine", "seed"):
        assert record[name] == manifest[name]
    assert record["config_sha256"] == digest((folder / "config.yaml").read_bytes())
    assert record["submission_sha256"] == digest((folder / "submission.csv").read_bytes())
    assert record["weights_sha256"] == {
        "fold0/checkpoints/step-00000002/model.safetensors": digest(b"w" * 200_000),
    }
    assert list(record["files_sha256"]) == ["fold0/result.json", "images.json", "run.json", "vocabulary/spiece.model"]
    assert record["diff"] == {"sha256": digest(b"a patch\r\n"), "secrets_removed": 0}
    assert record["kernel"] is None
    ledger = Ledger(workspace.ledger)
    assert ledger.kept(record["diff"]["sha256"]).read_bytes() == b"a patch\r\n"
    assert ledger.kept(record["config_sha256"]).read_bytes() == (folder / "config.yaml").read_bytes()
    assert ledger.kept(digest(b"w" * 200_000)) is None, "weights stay where they are"
    assert ledger_tags(record)["ledger.ref"] == "local:tiny_task:7"
    assert len(ledger.lines()) == 1


def test_what_comes_later_is_appended_and_folded(workspace):
    folder = make_trained_run(workspace)
    run = load_record(folder)
    entry = entry_of(folder, host="kaggle", ref=1234, status="PENDING", public={})
    enter_submission(workspace, run, entry)
    ledger = Ledger(workspace.ledger)
    before = ledger.path.read_bytes()
    enter_submission(workspace, run, entry)
    assert ledger.path.read_bytes() == before, "nothing new is not written"
    record = enter_submission(workspace, run, entry | {"status": "COMPLETE", "public": {"auc": 0.7}})
    assert (record["status"], record["public"], record["ref"]) == ("COMPLETE", {"auc": 0.7}, "kaggle:1234")
    record = enter_submission(workspace, run, entry | {"status": "COMPLETE", "private": {"auc": 0.6}})
    assert (record["public"], record["private"]) == ({"auc": 0.7}, {"auc": 0.6})
    assert ledger.path.read_bytes().startswith(before)
    assert [line["event"] for line in ledger.lines()] == ["submitted", "changed", "changed"]
    assert "weights_sha256" not in ledger.lines()[1]
    assert ledger.records() == [record]


def test_how_a_record_is_found(workspace):
    first, second = make_trained_run(workspace), make_trained_run(workspace, "20261122-100000-cccc")
    ledger = Ledger(workspace.ledger)
    with pytest.raises(PodiumError, match="its last ones are none: `make submit EXP=…` writes the first"):
        ledger.find("local:tiny_task:1")
    for folder, ref in ((first, 1), (first, 2), (second, 1)):
        enter_submission(workspace, load_record(folder), entry_of(folder, ref))
    assert ledger.find("local:tiny_task:2")["run"] == RUN
    assert ledger.find(RUN)["ref"] == "local:tiny_task:2"
    with pytest.raises(PodiumError) as error:
        ledger.find("local:tiny_task:1")
    assert str(error.value) == (
        f"local:tiny_task:1: 2 submissions bear this ref; write one of local:tiny_task:1@{RUN}, "
        "local:tiny_task:1@20261122-100000-cccc"
    )
    assert ledger.find("local:tiny_task:1@20261122-100000-cccc")["run"] == "20261122-100000-cccc"
    with pytest.raises(PodiumError) as error:
        ledger.find("kaggle:9")
    assert str(error.value) == (
        f"kaggle:9: no submission in {ledger.path} has this ref; its last ones are local:tiny_task:1, "
        "local:tiny_task:2, local:tiny_task:1"
    )


def test_torn_and_damaged_lines(workspace):
    ledger = Ledger(workspace.ledger)
    ledger.append({"event": "submitted", "ref": "kaggle:1", "run": "a"})
    with ledger.path.open("ab") as file:
        file.write(b'{"event": "submi')
    assert len(ledger.records()) == 1
    ledger.append({"event": "submitted", "ref": "kaggle:2", "run": "a"})
    assert [record["ref"] for record in ledger.records()] == ["kaggle:1", "kaggle:2"]
    ledger.path.write_bytes(b"{\n" + ledger.path.read_bytes())
    with pytest.raises(PodiumError, match="line 1 is no record: `git checkout -- ledger` brings"):
        ledger.lines()


def test_processes_that_append_at_once_lose_no_line(workspace):
    program = (
        "import sys; from pathlib import Path; from pipelines.submissions.ledger import Ledger\n"
        "for n in range(50): Ledger(Path(sys.argv[1])).append({'ref': sys.argv[2], 'n': n, 'text': 'x' * 5000})"
    )
    arguments = [sys.executable, "-c", program, str(workspace.ledger)]
    processes = [subprocess.Popen([*arguments, str(number)]) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    written = sorted((line["ref"], line["n"]) for line in Ledger(workspace.ledger).lines())
    assert written == [(str(number), n) for number in range(3) for n in range(50)]


def test_no_secret_is_written(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / ".kaggle" / "kaggle.json", '{"username": "alice", "key": "of-the-json-file"}')
    monkeypatch.setenv("SOME_TOKEN", 'with "quotes" and \\')
    command = ["podium", "train", "x", f"note={TOKEN}", "of-the-json-file", 'with "quotes" and \\']
    folder = make_trained_run(workspace, command=command, dirty=True)
    (folder / "config.yaml").write_text(f"token: {TOKEN}\n")
    (folder / "uncommitted.diff").write_text(f"+key = '{TOKEN}'\n")
    record = enter_submission(workspace, load_record(folder), entry_of(folder, description=f"with {TOKEN}"))
    assert record["command"] == ["podium", "train", "x", f"note={REMOVED}", REMOVED, REMOVED]
    assert record["description"] == f"with {REMOVED}"
    assert record["diff"]["secrets_removed"] == 1
    ledger = Ledger(workspace.ledger)
    assert ledger.kept(record["diff"]["sha256"]).read_text() == f"+key = '{REMOVED}'\n"
    assert ledger.kept(record["config_sha256"]) is None, "it is found in the run directory, or not at all"
    written = b"".join(path.read_bytes() for path in workspace.ledger.rglob("*") if path.is_file())
    for secret in (TOKEN, "of-the-json-file", "quotes"):
        assert secret.encode() not in written


def test_a_kernel_in_the_record(workspace, tmp_path):
    manifest = {"format": 1, "kernel": "alice/tiny", "mode": "predict", "bundle_sha256": "b" * 64}
    manifest |= {"built_with": {"resume": False, "mode": None}, "source_sha256": "5" * 64}
    manifest |= {"files": {"tiny.ipynb": "e" * 64}}
    manifest["datasets"] = [{"slug": "alice/tiny-weights", "kind": "weights", "files": 2}]
    path = write_lines(tmp_path / "MANIFEST.json", json.dumps(manifest))
    kernel = describe_kernel(path, version=3, dataset_versions={"alice/tiny-weights": 2}, docker_image="img@sha256:1")
    folder = make_trained_run(workspace)
    record = enter_submission(workspace, load_record(folder), entry_of(folder, host="kaggle"), kernel=kernel)
    assert record["kernel"] == {
        "kernel": "alice/tiny",
        "version": 3,
        "mode": "predict",
        "built_with": {"resume": False, "mode": None},
        "source_sha256": "5" * 64,
        "bundle_sha256": "b" * 64,
        "files": {"tiny.ipynb": "e" * 64},
        "datasets": manifest["datasets"],
        "dataset_versions": {"alice/tiny-weights": 2},
        "docker_image": "img@sha256:1",
        "commit": None,
        "diff": None,
        "files_sha256": {"folds.csv": digest(b"{}\n")},
    }
    assert ledger_tags(record)["ledger.kernel"] == "alice/tiny/3"
    with pytest.raises(PodiumError, match=r"cannot be read .*; build the kernel again"):
        describe_kernel(tmp_path / "nothing.json", version=1)


def test_a_submission_to_the_local_host_is_entered(workspace, monkeypatch, tmp_path):
    install_competition(monkeypatch, tmp_path / "table", task="regression", metric="rmse", extra_metrics=())
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0")
    write_lines(workspace.local_host("tiny-task") / "solution.csv", "id,label,usage", "a,0,public", "b,0,private")
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0", "b,0")
    folder = make_trained_run(workspace)
    write_lines(folder / "submission.csv", "id,label", "a,2", "b,1")
    screen = Console(file=io.StringIO(), width=200)
    submit(workspace, run=RUN, console=screen)
    (record,) = Ledger(workspace.ledger).records()
    assert (record["ref"], record["public"], record["status"]) == ("local:tiny_task:1", {"rmse": 2.0}, "COMPLETE")
    assert "private" not in Ledger(workspace.ledger).path.read_text()
    (workspace.ledger / "ledger.jsonl").write_text("no record\n")
    submit(workspace, run=RUN, again=True, console=screen)
    assert "the ledger could not be written (" in screen.file.getvalue()
    assert len((folder / "submissions.jsonl").read_text().splitlines()) == 2
