"""Uncommitted changes are a patch that makes the same source again, whatever the user's settings of git are."""

import subprocess

import pytest

from pipelines.engine import source_state


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
    monkeypatch.setattr(source_state, "_package_folder", lambda package: root / "pipelines")
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
    state = source_state.read_source_state()
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
    state = source_state.read_source_state()
    assert (state.diff, state.is_dirty) == ("", False)
    assert len(state.commit) == 40
