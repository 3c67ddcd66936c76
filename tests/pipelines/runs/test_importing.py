"""A kernel's run becomes a run of this workspace: its files, its curves with their times, its folds, its source."""

import json
import shutil
import subprocess

import pytest
from reopened import reopen
from mlflow.tracking import MlflowClient
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.source import search
from pipelines.runs.importing import CONTINUED, KNOWN, NEW, find_runs, import_run, read_origin
from pipelines.runs.keeping import take_in
from pipelines.runs.source.search import KnownSource, find_source
from pipelines.runs.source.state import SourceState, hash_source
from pipelines.tracking.jsonl import open_jsonl_tracker
from pipelines.tracking.tracker import tracking_record
from pipelines.workspace import Workspace

RUN = "20261121-100000-bbbb"
STARTED = 1_700_000_000_000


@pytest.fixture
def workspace(tmp_path, database_template, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "checkout")
    workspace.root.mkdir()
    shutil.copy(database_template, workspace.mlflow_db)
    return workspace


@pytest.fixture
def output(tmp_path, monkeypatch):
    """The pulled output of version 3 of a kernel, which has trained ten steps of two folds and then ran out of time."""
    clock = iter(range(STARTED, STARTED + 10_000_000, 1000))
    monkeypatch.setattr("pipelines.tracking.jsonl.now_ms", lambda: next(clock))
    folder = tmp_path / "outputs" / "tiny" / "v3"
    run_dir = make_run(
        Workspace(folder), RUN, status="interrupted", commit=None, dirty=False, source_sha256="5" * 64, finished="early"
    )
    tracker = train(run_dir, steps=range(1, 11))
    record = json.loads((run_dir / "run.json").read_text()) | {"tracking": tracking_record(tracker).entries()}
    write_lines(run_dir / "run.json", json.dumps(record))
    tracker.finish("KILLED")
    write_lines(folder.with_suffix(".json"), json.dumps({"kernel": "alice/tiny", "version": 3, "files": {}}))
    return folder


def train(run_dir, steps):
    tracker = open_jsonl_tracker(run_dir, competition="tiny-task", run_name=f"first_try {RUN}")
    tracker.log_params({"optimizer.lr": 0.1})
    tracker.log_tags({"stage": "train"})
    tracker.log_text("optimizer: {lr: 0.1}\n", "config.yaml")
    for fold in ("fold0", "fold1"):
        for step in steps:
            tracker.child(fold).log_metrics({"train/loss": 1 / step}, step=step)
    return tracker


def go_on(output):
    """The next version went on from this output and finished."""
    folder = output.with_name("v4")
    shutil.copytree(output, folder)
    run_dir = folder / "runs" / "first_try" / RUN
    tracker = train(run_dir, steps=range(8, 21))
    tracker.log_metrics({"cv/auc": 0.75})
    tracker.finish("FINISHED")
    record = json.loads((run_dir / "run.json").read_text()) | {"status": "finished", "finished": "late"}
    write_lines(run_dir / "run.json", json.dumps(record))
    return folder


def folds_of(client, run):
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    return {run.info.run_name: run for run in found}


def test_what_the_run_of_others_could_not_send_is_not_sent_from_here(workspace, output, tmp_path):
    (tmp_path / "private.txt").write_text("private")
    unsent = output / "runs" / "first_try" / RUN / "tracking" / "unsent.jsonl"
    unsent.write_text(json.dumps({"time": 1, "artifact": str(tmp_path / "private.txt")}) + "\n")
    take_in(workspace, output)
    assert list(workspace.runs.rglob("unsent*")) == []
    assert list((workspace.root / "mlartifacts").rglob("private.txt")) == []


def test_a_run_arrives_as_if_it_had_run_here(workspace, output):
    (imported,) = take_in(workspace, output)
    assert imported.state == NEW
    assert imported.run.path == workspace.runs / "first_try" / RUN
    record = imported.run.read_record()
    assert record.imported.entries() == {"kernel": "alice/tiny", "version": 3}
    client = MlflowClient(f"sqlite:///{workspace.mlflow_db}")
    run = client.get_run(record.tracking.run_id)
    assert (run.info.run_name, run.info.status, run.info.start_time) == (f"first_try {RUN}", "KILLED", STARTED)
    assert STARTED < run.info.end_time < STARTED + 60_000
    assert client.get_experiment(run.info.experiment_id).name == "tiny-task"
    assert run.data.params == {"optimizer.lr": "0.1"}
    assert (run.data.tags["kernel"], run.data.tags["kernel.version"]) == ("alice/tiny", "3")
    assert run.data.tags["run_dir"] == f"runs/first_try/{RUN}"
    folds = folds_of(client, run)
    assert set(folds) == {"fold0", "fold1"}
    for name, fold in folds.items():
        assert STARTED < fold.info.start_time < fold.info.end_time < STARTED + 60_000
        for run_id, key in ((fold.info.run_id, "train/loss"), (run.info.run_id, f"train/loss/{name}")):
            curve = client.get_metric_history(run_id, key)
            assert [(point.step, point.value) for point in curve] == [(step, 1 / step) for step in range(1, 11)]
            assert all(STARTED < point.timestamp < STARTED + 60_000 for point in curve)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.yaml"]
    tracker = reopen(workspace, record.entries())
    tracker.log_metrics({"lb/public": 0.5})
    tracker.finish("FINISHED")
    assert client.get_run(run.info.run_id).data.metrics["lb/public"] == 0.5


def test_twice_is_once_and_a_continued_run_is_continued(workspace, output):
    (first,) = take_in(workspace, output)
    run_id = first.run.read_record().tracking.run_id
    write_lines(first.run.path / "submissions.jsonl", "{}")
    before = {path: path.read_bytes() for path in workspace.runs.rglob("*") if path.is_file()}
    assert [run.state for run in take_in(workspace, output)] == [KNOWN]
    assert {path: path.read_bytes() for path in workspace.runs.rglob("*") if path.is_file()} == before
    (second,) = take_in(workspace, go_on(output))
    assert second.state == CONTINUED
    record = second.run.read_record()
    assert (record.status, record.tracking.run_id) == ("finished", run_id)
    assert (second.run.path / "submissions.jsonl").is_file()
    client = MlflowClient(f"sqlite:///{workspace.mlflow_db}")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics["cv/auc"]) == ("FINISHED", 0.75)
    folds = folds_of(client, run)
    assert len(folds) == 2
    curve = client.get_metric_history(folds["fold1"].info.run_id, "train/loss")
    assert [point.step for point in curve] == list(range(1, 21))
    assert len(client.search_runs([run.info.experiment_id])) == 3
    with pytest.raises(PodiumError, match=r"is there already, and .* is no continuation of it; move it away"):
        take_in(workspace, output)


def test_what_is_no_run_is_said(workspace, output, tmp_path):
    with pytest.raises(PodiumError, match="no such folder; `podium pull` fetches a kernel's output"):
        find_runs(tmp_path / "nothing")
    with pytest.raises(PodiumError, match=r"holds no run directory \(run.json\); a kernel that trains leaves one"):
        find_runs(workspace.root)
    run_dir = output / "runs" / "first_try" / RUN
    assert find_runs(run_dir) == find_runs(output) == [run_dir]
    assert read_origin(run_dir) is None
    shutil.rmtree(run_dir / "tracking")
    with pytest.raises(PodiumError, match="holds no run with a tracking/ folder"):
        find_runs(output)
    assert not workspace.runs.exists()


def test_the_commit_of_a_kernels_source_is_found(workspace, output, monkeypatch):
    monkeypatch.setattr(
        "pipelines.runs.importing.find_source", lambda root, sha256: KnownSource("c" * 40, f"patch of {sha256}")
    )
    run = import_run(workspace, output / "runs" / "first_try" / RUN, None).run
    record = run.read_record()
    assert (record.commit, record.dirty) == ("c" * 40, True)
    assert run.diff_file.read_text() == f"patch of {'5' * 64}"


def test_a_digest_is_searched_for_in_the_history(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    digests, commits = [], []
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    monkeypatch.setattr("pipelines.runs.source.state._package_folder", lambda package: root / package.__name__)
    for number in range(3):
        for name in ("components/b.py", "components/sub/a.py", "components/sub.py", "pipelines/a.py"):
            write_lines(root / name, f"A = {number}", name)
        write_lines(root / "components" / "data.txt", "no module")
        subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
        subprocess.run(["git", "-C", str(root), *identity, "commit", "-qm", f"{number}"], check=True)
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits.append(head.stdout.strip())
        digests.append(hash_source())
    for commit, digest in zip(commits, digests, strict=True):
        assert find_source(root, digest) == KnownSource(commit, "")
    assert find_source(root, "0" * 64) is None
    state = SourceState("d" * 40, None, "changes", "1" * 64)
    monkeypatch.setattr(search, "read_source_state", lambda: state)
    assert find_source(root, "1" * 64) == KnownSource("d" * 40, "changes")
