"""One file per submission: whole, sealed, without secrets, merged by git, and found again by its ref."""

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.manifest import BuildFlags, BuiltDataset
from pipelines.kernels.submitted_kernel import KeptDiff, SubmittedKernel
from pipelines.redaction import REMOVED
from pipelines.runs.run import Run
from pipelines.runs.submission import Status, Submission
from pipelines.submissions.ledger import Ledger, enter_submission, is_entered
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
    facts = {
        "time": "2026-11-21T12:00:00+00:00",
        "host": "local",
        "competition": "tiny_task",
        "ref": ref,
        "description": "as it is",
        "sha256": digest((folder / "submission.csv").read_bytes()),
        "status": "COMPLETE",
        "public": {"auc": 0.5},
    }
    return Submission.of(facts | changes, "the test")


def files_of(workspace):
    """The records' files, by their places in the ledger."""
    paths = sorted(path for path in workspace.ledger.glob("*/*/*") if path.is_file())
    return {path.relative_to(workspace.ledger).as_posix(): path.read_bytes() for path in paths}


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
    record = enter_submission(workspace, Run.look(folder), entry_of(folder))
    assert record.ref == "local:tiny_task:7"
    for name in ("command", "commit", "source_sha256", "data_sha256", "folds_sha256", "versions", "machine", "seed"):
        assert record.entries()[name] == manifest[name]
    assert record.config_sha256 == digest((folder / "config.yaml").read_bytes())
    assert record.submission_sha256 == digest((folder / "submission.csv").read_bytes())
    assert record.weights_sha256 == {
        "fold0/checkpoints/step-00000002/model.safetensors": digest(b"w" * 200_000),
    }
    assert list(record.files_sha256) == ["fold0/result.json", "images.json", "run.json", "vocabulary/spiece.model"]
    assert record.diff == KeptDiff(sha256=digest(b"a patch\r\n"))
    assert record.kernel is None
    ledger = Ledger(workspace.ledger)
    assert ledger.kept(record.diff.sha256).read_bytes() == b"a patch\r\n"
    assert ledger.kept(record.config_sha256).read_bytes() == (folder / "config.yaml").read_bytes()
    assert ledger.kept(digest(b"w" * 200_000)) is None, "weights stay where they are"
    assert record.tags()["ledger.ref"] == "local:tiny_task:7"
    assert list(files_of(workspace)) == [f"local/tiny_task/7@{RUN}.json"]
    assert ledger.records() == [record]


def test_what_comes_later_replaces_the_file_of_the_one_record(workspace):
    folder = make_trained_run(workspace)
    run = Run.look(folder)
    entry = entry_of(folder, host="kaggle", ref=1234, status="PENDING", public={})
    first = enter_submission(workspace, run, entry)
    ledger = Ledger(workspace.ledger)
    before = files_of(workspace)
    assert list(before) == [f"kaggle/tiny_task/1234@{RUN}.json"]
    inode = ledger.folder.joinpath(*before).stat().st_ino
    enter_submission(workspace, run, entry)
    assert ledger.folder.joinpath(*before).stat().st_ino == inode, "nothing new is not written"
    (folder / "config.yaml").write_text("name: changed since\n")
    record = enter_submission(workspace, run, replace(entry, status=Status.COMPLETE, public={"auc": 0.7}))
    assert record == replace(first, status=Status.COMPLETE, public={"auc": 0.7}), "what went in stays as it was"
    record = enter_submission(workspace, run, replace(entry, status=Status.COMPLETE, private={"auc": 0.6}))
    assert (record.public, record.private) == ({"auc": 0.7}, {"auc": 0.6})
    assert list(files_of(workspace)) == list(before)
    assert ledger.records() == [record]


def test_a_score_that_is_no_number_is_written_once(workspace):
    folder = make_trained_run(workspace)
    entry = entry_of(folder, public={"auc": float("nan")})
    enter_submission(workspace, Run.look(folder), entry)
    assert is_entered(Ledger(workspace.ledger).of_submission(entry, RUN), entry)


def test_how_a_record_is_found(workspace):
    first, second = make_trained_run(workspace), make_trained_run(workspace, "20261122-100000-cccc")
    ledger = Ledger(workspace.ledger)
    with pytest.raises(PodiumError, match="its last ones are none: `make submit EXP=…` writes the first"):
        ledger.find("local:tiny_task:1")
    for folder, ref in ((first, 1), (first, 2), (second, 1)):
        enter_submission(workspace, Run.look(folder), entry_of(folder, ref))
    assert ledger.find("local:tiny_task:2").run == RUN
    assert ledger.find(RUN).ref == "local:tiny_task:2"
    with pytest.raises(PodiumError) as error:
        ledger.find("local:tiny_task:1")
    assert str(error.value) == (
        f"local:tiny_task:1: 2 submissions bear this ref; write one of local:tiny_task:1@{RUN}, "
        "local:tiny_task:1@20261122-100000-cccc"
    )
    assert ledger.find("local:tiny_task:1@20261122-100000-cccc").run == "20261122-100000-cccc"
    with pytest.raises(PodiumError) as error:
        ledger.find("kaggle:9")
    assert str(error.value) == (
        f"kaggle:9: no submission in {ledger.folder} has this ref; its last ones are local:tiny_task:1, "
        "local:tiny_task:1, local:tiny_task:2"
    )


def test_records_stand_in_the_order_of_their_times(workspace):
    first, second = make_trained_run(workspace), make_trained_run(workspace, "20261122-100000-cccc")
    for folder, ref, hour in ((second, 12, 3), (first, 2, 1), (first, 11, 2), (second, 3, 2)):
        entry = entry_of(folder, ref, time=f"2026-11-21T0{hour}:00:00+00:00")
        enter_submission(workspace, Run.look(folder), entry)
    assert [entry.number for entry in Ledger(workspace.ledger).records()] == [2, 3, 11, 12]


# -- the version before ----------------------------------------------------------------------------------------------

BEGUN = {
    "event": "submitted",
    "time": "2026-11-20T12:00:00+00:00",
    "ref": "kaggle:1",
    "host": "kaggle",
    "competition": "tiny_task",
    "experiment": "first_try",
    "run": RUN,
    "command": None,
    "mode": None,
    "data_sha256": {},
    "config_sha256": "c" * 64,
    "kernel": None,
    "submission_sha256": "5" * 64,
    "status": "PENDING",
}
SCORED = {"event": "changed", "time": "2026-11-21T12:00:00+00:00", "ref": "kaggle:1", "run": RUN}
SCORED |= {"status": "COMPLETE", "public": {"auc": 0.5}}


def test_lines_of_the_version_before_are_read_and_left_alone(workspace):
    path = write_lines(workspace.ledger / "ledger.jsonl", json.dumps(BEGUN), json.dumps(SCORED))
    with path.open("ab") as file:
        file.write(b'{"event": "submi')
    before = path.read_bytes()
    folder, ledger = make_trained_run(workspace), Ledger(workspace.ledger)
    (record,) = ledger.records()
    assert (record.time, record.status, record.public) == (BEGUN["time"], "COMPLETE", {"auc": 0.5})
    told = entry_of(folder, 1, host="kaggle", time=BEGUN["time"], sha256="5" * 64)
    assert enter_submission(workspace, Run.look(folder), told) == record
    assert files_of(workspace) == {}, "what is there is not written once more"
    enter_submission(workspace, Run.look(folder), replace(told, private={"auc": 0.4}))
    enter_submission(workspace, Run.look(folder), entry_of(folder, 2, host="kaggle"))
    assert list(files_of(workspace)) == [f"kaggle/tiny_task/{number}@{RUN}.json" for number in (1, 2)]
    assert ledger.records()[0] == replace(record, private={"auc": 0.4}), "the file goes before the lines"
    assert [entry.ref for entry in ledger.records()] == ["kaggle:1", "kaggle:2"]
    assert path.read_bytes() == before
    path.write_bytes(b"{\n" + before)
    with pytest.raises(PodiumError, match="line 1 is no record: `git checkout -- ledger` brings the committed lines"):
        ledger.records()


# -- several hands ---------------------------------------------------------------------------------------------------


def test_processes_that_write_the_same_records_at_once_leave_them_whole(workspace):
    folder = make_trained_run(workspace)
    for ref in (1, 2):
        enter_submission(workspace, Run.look(folder), entry_of(folder, ref))
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from pipelines.submissions.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in range(40):\n"
        "    for entry in ledger.records(): ledger.write(replace(entry, place=n, error=sys.argv[2] * 5000))"
    )
    arguments = [sys.executable, "-c", program, str(workspace.ledger)]
    processes = [subprocess.Popen([*arguments, word]) for word in ("a", "b", "c")]
    assert [process.wait() for process in processes] == [0, 0, 0]
    records = Ledger(workspace.ledger).records()
    assert [(record.number, record.place, len(record.error)) for record in records] == [(1, 39, 5000), (2, 39, 5000)]
    assert list(workspace.ledger.rglob("*.partial")) == []


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_git_merges_the_records_of_two_branches_without_a_conflict(workspace):
    """Both branches give the number 2, and both are told the score of the submission that they share."""
    first, second = make_trained_run(workspace), make_trained_run(workspace, "20261122-100000-cccc")
    shared = entry_of(first, 1, host="kaggle", status="PENDING", public={})
    enter_submission(workspace, Run.look(first), shared)
    git(workspace.root, "init", "--quiet", "--initial-branch", "main")
    git(workspace.root, "add", "ledger")
    git(workspace.root, "commit", "--quiet", "--message", "begun")
    for branch, folder in (("one", first), ("two", second)):
        git(workspace.root, "checkout", "--quiet", "-b", branch, "main")
        enter_submission(workspace, Run.look(folder), entry_of(folder, 2))
        enter_submission(workspace, Run.look(first), entry_of(first, 1, host="kaggle"))
        git(workspace.root, "add", "ledger")
        git(workspace.root, "commit", "--quiet", "--message", branch)
    git(workspace.root, "merge", "--quiet", "--no-edit", "one")
    assert git(workspace.root, "status", "--porcelain", "ledger") == ""
    records = Ledger(workspace.ledger).records()
    assert [(record.address, record.public) for record in records] == [
        (f"kaggle:1@{RUN}", {"auc": 0.5}),
        (f"local:tiny_task:2@{RUN}", {"auc": 0.5}),
        ("local:tiny_task:2@20261122-100000-cccc", {"auc": 0.5}),
    ]


def test_no_secret_is_written(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / ".kaggle" / "kaggle.json", '{"username": "alice", "key": "of-the-json-file"}')
    monkeypatch.setenv("SOME_TOKEN", 'with "quotes" and \\')
    command = ["podium", "train", "x", f"note={TOKEN}", "of-the-json-file", 'with "quotes" and \\']
    folder = make_trained_run(workspace, command=command, dirty=True)
    (folder / "config.yaml").write_text(f"token: {TOKEN}\n")
    (folder / "uncommitted.diff").write_text(f"+key = '{TOKEN}'\n")
    record = enter_submission(workspace, Run.look(folder), entry_of(folder, description=f"with {TOKEN}"))
    assert record.command == ("podium", "train", "x", f"note={REMOVED}", REMOVED, REMOVED)
    assert record.description == f"with {REMOVED}"
    assert record.diff.secrets_removed == 1
    ledger = Ledger(workspace.ledger)
    assert ledger.kept(record.diff.sha256).read_text() == f"+key = '{REMOVED}'\n"
    assert ledger.kept(record.config_sha256) is None, "it is found in the run directory, or not at all"
    written = b"".join(path.read_bytes() for path in workspace.ledger.rglob("*") if path.is_file())
    for secret in (TOKEN, "of-the-json-file", "quotes"):
        assert secret.encode() not in written


def test_a_kernel_in_the_record(workspace):
    dataset = {"slug": "tiny-weights", "kind": "weights", "files": {"a": "a" * 64}, "paths": {"a": "fold0/a"}}
    kernel = SubmittedKernel(
        kernel=KernelName("alice", "tiny"),
        version=3,
        mode=KernelMode.PREDICT,
        built_with=BuildFlags(resume=False, mode=None),
        source_sha256="5" * 64,
        bundle_sha256="b" * 64,
        files={"tiny.ipynb": "e" * 64},
        datasets=(BuiltDataset.of(dataset, "MANIFEST.json"),),
        dataset_versions={KernelName("alice", "tiny-weights"): 2},
        docker_image="img@sha256:1",
        commit=None,
        diff=None,
        files_sha256={},
    )
    folder = make_trained_run(workspace)
    record = enter_submission(workspace, Run.look(folder), entry_of(folder, host="kaggle"), kernel=kernel)
    assert record.kernel.entries() == {
        "kernel": "alice/tiny",
        "version": 3,
        "mode": "predict",
        "built_with": {"resume": False, "mode": None},
        "source_sha256": "5" * 64,
        "bundle_sha256": "b" * 64,
        "files": {"tiny.ipynb": "e" * 64},
        "datasets": [dataset],
        "dataset_versions": {"alice/tiny-weights": 2},
        "docker_image": "img@sha256:1",
        "files_sha256": {"folds.csv": digest(b"{}\n")},
    }
    assert record.tags()["ledger.kernel"] == "alice/tiny/3"


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
    assert (record.ref, record.public, record.status) == ("local:tiny_task:1", {"rmse": 2.0}, "COMPLETE")
    (path,) = workspace.ledger.glob("*/*/*.json")
    assert "private" not in path.read_text()
    path.write_text("no record\n")
    submit(workspace, run=RUN, again=True, console=screen)
    assert f"{path}: damaged (no JSON: expected ident at line 1 column 2): `git checkout -- ledger` brings the" in (
        screen.file.getvalue()
    )
    assert len((folder / "submissions.jsonl").read_text().splitlines()) == 2
    assert (workspace.ledger / "local" / "tiny_task" / f"2@{RUN}.json").is_file(), "the others are entered all the same"
    path.unlink()
    (workspace.ledger / "ledger.jsonl").write_text("no record\n")
    submit(workspace, run=RUN, again=True, console=screen)
    assert "the ledger could not be written (" in screen.file.getvalue()
    assert len((folder / "submissions.jsonl").read_text().splitlines()) == 3
