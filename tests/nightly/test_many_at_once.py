"""The long forms of what make test does with four: eight trackers at once, and twenty-five killed submits."""

import pytest
from killed_submits import (
    check_agreement,
    count_calls,
    in_a_process,
    killed_submit,
    make_tracked_runs,
    moments,
    quietly,
    raced_submits,
)
from tiny_competition import install_competition
from trackers_at_once import check_all_recorded

from pipelines.workspace import Workspace

pytestmark = pytest.mark.nightly


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    options = {"task": "regression", "metric": "rmse", "extra_metrics": (), "daily_limit": 60}
    install_competition(monkeypatch, tmp_path / "table", **options)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "checkout").mkdir()
    return Workspace(tmp_path / "checkout")


@pytest.mark.parametrize("is_empty_file_there", [False, True])
def test_eight_that_start_without_a_database_are_all_in_it(workspace, is_empty_file_there):
    if is_empty_file_there:
        workspace.mlflow_db.touch()
    check_all_recorded(workspace, 8)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_five_killed_submits_and_a_race_lose_nothing(workspace, seed):
    runs = make_tracked_runs(workspace, 4)
    total = in_a_process(lambda: count_calls(lambda: quietly(workspace, runs[0])))
    for number, moment in enumerate(moments(total, 25, seed)):
        killed_submit(workspace, runs[number % 4], moment, again=True)
        if number % 5 == 4:
            assert raced_submits(workspace, runs, again=True) == [0, 0, 0, 0]
            refs = check_agreement(workspace)
            assert refs == list(range(1, len(refs) + 1))
