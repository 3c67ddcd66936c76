"""Uncommitted changes are a patch that makes the same source again, whatever the user's settings of git are."""

import os
import shutil
import subprocess

import pytest

from pipelines.runs.record import RunRecord
from pipelines.runs.run import Run, start_record
from pipelines.runs.source import state as state_of
from pipelines.runs.observer import Screen
from pipelines.training import train


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one module, and git settings that would spoil a patch."""
    for name, value in {"HOME": str(tmp_path / "home"), "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "checkout"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "one.py").write_bytes(b"A = 1\r\nB = 2\r\n")
    git(root, "init", "-q")
    for name, value in {"user.name": "x", "user.email": "x@y", "diff.noprefix": "true", "color.ui": "always"}.items():
        git(root, "config", name, value)
    commit(root)
    monkeypatch.setattr(state_of, "_package_folder", lambda package: root / "pipelines")
    return root


def git(root, *arguments, **options):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, **options)


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-qm", "state")


def test_changed_new_and_binary_files_can_be_applied(checkout, tmp_path):
    (checkout / "pipelines" / "one.py").write_bytes(b"A = 1\r\nB = 3\r\n")
    (checkout / "pipelines" / "né w.py").write_bytes(b"C = 4\n")
    (checkout / "notes.txt").write_text("not of the source")
    state = state_of.read_source_state()
    assert state.is_dirty
    assert "notes.txt" not in state.diff
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    git(clone, "apply", "--whitespace=nowarn", "-", input=state.diff.encode())
    for name in ("one.py", "né w.py"):
        assert (clone / "pipelines" / name).read_bytes() == (checkout / "pipelines" / name).read_bytes()


def test_a_growing_ledger_makes_no_run_dirty(checkout):
    (checkout / "ledger").mkdir()
    (checkout / "ledger" / "ledger.jsonl").write_text("{}\n")
    commit(checkout)
    (checkout / "ledger" / "ledger.jsonl").write_text("{}\n{}\n")
    state = state_of.read_source_state()
    assert (state.diff, state.is_dirty) == ("", False)
    assert len(state.commit) == 40


def refuse_ownership(monkeypatch, checkout):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return (
        f"fatal: detected dubious ownership in repository at '{checkout}'; "
        f"run git config --global --add safe.directory {checkout}"
    )


def lose_git(monkeypatch, checkout):
    monkeypatch.setenv("PATH", str(checkout))
    return "git cannot be started (No such file or directory)"


def hang(monkeypatch, checkout):
    (checkout / "git").write_text("#!/bin/sh\nexec sleep 9\n")
    (checkout / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout), prepend=os.pathsep)
    monkeypatch.setattr(state_of, "_TIMEOUT_SECONDS", 0.2)
    return "git rev-parse took longer than 0.2 s"


@pytest.mark.parametrize("fault", [refuse_ownership, lose_git, hang])
def test_where_git_tells_nothing_changes_are_unknown_and_the_reason_is_said(fault, checkout, monkeypatch):
    problem = fault(monkeypatch, checkout)
    state = state_of.read_source_state()
    assert (state.commit, state.branch, state.diff, state.is_dirty) == (None, None, "", None)
    assert state.problem == problem
    assert state.sha256 == state_of.hash_source()


def test_where_git_tells_the_commit_alone_changes_are_unknown(checkout):
    (checkout / "pipelines" / "one.py").write_bytes(b"A = 2\n")
    (checkout / ".git" / "index").write_bytes(b"torn")
    state = state_of.read_source_state()
    assert len(state.commit) == 40
    assert (state.is_dirty, state.diff) == (None, "")
    assert state.problem.startswith("error: index file") or state.problem.startswith("fatal:")


def test_before_the_first_commit_and_outside_a_checkout_changes_are_unknown(checkout, tmp_path, monkeypatch):
    (tmp_path / "bundle" / "pipelines").mkdir(parents=True)
    git(tmp_path / "bundle", "init", "-q")
    monkeypatch.setattr(state_of, "_package_folder", lambda package: tmp_path / "bundle" / "pipelines")
    state = state_of.read_source_state()
    assert (state.commit, state.is_dirty) == (None, None)
    assert state.problem.startswith("fatal: ambiguous argument 'HEAD'")
    shutil.rmtree(tmp_path / "bundle" / ".git")
    # As within a kernel, where it is no fault
    state = state_of.read_source_state()
    assert (state.commit, state.is_dirty, state.problem) == (None, None, None)


def test_new_modules_without_a_line_are_no_fault(checkout):
    (checkout / "pipelines" / "empty.py").touch()
    (checkout / "pipelines" / "same.py").symlink_to("one.py")
    state = state_of.read_source_state()
    assert (state.is_dirty, state.problem) == (True, None)


@pytest.mark.parametrize(
    ("dirty", "tag"), [(True, "true"), (False, "false"), (None, "unknown")]
)
def test_trackers_are_told_what_is_known(dirty, tag):
    assert RunRecord(run="r", experiment="e", dirty=dirty).dirty_word == tag


@pytest.mark.parametrize("problem", [None, "git cannot be started (No such file or directory)"])
def test_the_record_and_the_screen_say_what_git_said(problem, tmp_path, capsys):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    state = state_of.SourceState("c" * 40 if problem is None else None, None, "", "0" * 64, problem)
    start_record(run, RunRecord(run="run", experiment="e", competition="c"), state)
    record = run.read_record()
    assert record.dirty is (False if problem is None else None)
    assert record.git_problem == problem
    train._say_source(run, Screen())
    said = capsys.readouterr().err
    expected = f"commit and changes of this checkout are not on record, for git says: {problem}\n"
    assert said == ("" if problem is None else expected)
