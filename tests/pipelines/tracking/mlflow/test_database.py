"""One database for all who start at once, and a place that MLflow cannot use is refused at once."""

import shutil

import pytest
from trackers_at_once import check_all_recorded

from pipelines.cli import main
from pipelines.errors import PodiumError
from pipelines.tracking.mlflow.database import prepare_database
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "checkout").mkdir()
    return Workspace(tmp_path / "checkout")


def test_what_a_kill_left_beside_a_whole_database_is_removed(workspace, database_template):
    shutil.copy(database_template, workspace.mlflow_db)
    folder = workspace.root / ".mlflow.db.preparing"
    folder.mkdir()
    (folder / "unfinished.db").write_bytes(b"half")
    (workspace.root / ".mlflow.db.lock").touch()
    main(["--root", str(workspace.root), "tracking", "prepare"])
    assert [path.name for path in workspace.root.iterdir()] == ["mlflow.db"]


def test_four_that_start_without_a_database_are_all_in_it(workspace):
    check_all_recorded(workspace, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a%20b", "MLflow takes the % in this path for a code and looks in "),
        ("a?b", "MLflow takes the ? in this path for the end of its database's name; move the checkout"),
    ],
)
def test_a_path_that_mlflow_reads_otherwise_is_refused_at_once(tmp_path, monkeypatch, name, said):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / name)
    workspace.root.mkdir()
    with pytest.raises(PodiumError) as error:
        open_mlflow_tracker(workspace, competition="c", run_name="r", run_dir=workspace.runs / "e" / "r")
    assert str(error.value).startswith(f"{workspace.mlflow_db}: {said}")
    assert "\n" not in str(error.value)
    with pytest.raises(PodiumError):
        prepare_database(workspace)
    assert list(workspace.root.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"no database" * 100)])
def test_what_is_no_database_is_named_at_once(workspace, make):
    make(workspace.mlflow_db)
    with pytest.raises(PodiumError, match=r"mlflow\.db cannot be used: .*; move the checkout") as error:
        open_mlflow_tracker(workspace, competition="c", run_name="r", run_dir=workspace.runs / "e" / "r")
    assert "\n" not in str(error.value)
