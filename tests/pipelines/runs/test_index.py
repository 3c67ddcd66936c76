"""Which run an experiment's name means: a real one that finished last, by a clock that can be believed."""

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.run import Run
from pipelines.workspace import Workspace

OLD, REAL, SMOKE, OVERFIT = (f"202611{day}-100000-aaaa" for day in (20, 21, 22, 23))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def runs(workspace):
    """Two real runs, and later ones with SMOKE=1 and OVERFIT=1."""
    make_run(workspace, OLD, mode=None)
    make_run(workspace, REAL)
    make_run(workspace, SMOKE, mode="smoke")
    make_run(workspace, OVERFIT, mode="overfit")
    return workspace.runs


def error_of(action, *arguments, **options):
    with pytest.raises(PodiumError) as error:
        action(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_newest_finished_run_is_a_real_one(runs):
    assert Run.newest_finished(runs, "first_try").id == REAL
    assert Run.newest_finished(runs, "first_try", mode="smoke").id == SMOKE
    assert Run.of_name(runs, "first_try").id == REAL
    assert Run.of_name(runs, OVERFIT).id == Run.find(runs, OVERFIT).id == OVERFIT
    assert [(r.mode, r.is_real, r.trial) for r in Run.list(runs)] == [
        ("real", True, ""),
        ("real", True, ""),
        ("smoke", False, "a smoke run"),
        ("overfit", False, "an overfit run"),
    ]


@pytest.mark.parametrize("mode", ["smokey", "Smoke", "real", "", 0, False, True, ["smoke"], {"smoke": 1}])
def test_a_damaged_mode_is_no_real_run(workspace, mode):
    make_run(workspace, REAL)
    folder = make_run(workspace, SMOKE, mode=mode)
    record = Run.look(folder)
    words = f"{folder / 'run.json'}: mode: {mode!r}: no such mode; it is null, smoke or overfit"
    assert (record.is_real, record.status, record.damage) == (False, "damaged", words)
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == (
        f"{words}; to use the finished run before it: RUN={REAL}"
    )
    assert error_of(Run.find, workspace.runs, SMOKE) == f"{words}; restore the file or train again"


def test_only_smoke_and_overfit_runs_have_finished(workspace):
    make_run(workspace, SMOKE, mode="smoke")
    make_run(workspace, OVERFIT, mode="overfit")
    message = (
        f"experiment first_try: only smoke and overfit runs of it have finished (the newest, {OVERFIT}, is an overfit "
        "run), and its name never means one of them; get a real run with: make CURE EXP=first_try; or name that run "
        f"itself: --run {OVERFIT} (RUN={OVERFIT}, or run:{OVERFIT} as a checkpoint)"
    )
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == message.replace("CURE", "experiment")
    make_run(workspace, REAL, status="interrupted")
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == message.replace("CURE", "resume")
    assert error_of(Run.of_name, workspace.runs, "first_try") == message.replace("CURE", "resume")


def test_nothing_has_finished(workspace):
    make_run(workspace, SMOKE, mode="smoke", status="failed")
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == (
        f"experiment first_try: none of its runs has finished (the newest, {SMOKE}, is a smoke run and failed); "
        "make a real one with: make experiment EXP=first_try"
    )
    assert error_of(Run.newest_finished, workspace.runs, "first_try", mode="smoke") == (
        "experiment first_try: none of its runs that have finished is a smoke run; make one with: "
        "make experiment EXP=first_try SMOKE=1"
    )
    make_run(workspace, OLD, status="failed")
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == (
        f"experiment first_try: none of its runs has finished (the newest, {OLD}, is failed); "
        "finish it with: make resume EXP=first_try"
    )


def test_only_a_damaged_run_is_there(workspace):
    folder = make_run(workspace, SMOKE, mode="smokey")
    assert error_of(Run.newest_finished, workspace.runs, "first_try") == (
        f"{folder / 'run.json'}: mode: 'smokey': no such mode; it is null, smoke or overfit; restore the file or train "
        "again"
    )


def test_resume_goes_on_with_a_real_run(workspace):
    make_run(workspace, SMOKE, mode="smoke", status="interrupted")
    assert error_of(Run.newest_unfinished, workspace.runs, "first_try") == (
        f"first_try: no unfinished run but {SMOKE}, a smoke run: `make resume RUN={SMOKE}` goes on with that one, "
        "`make experiment EXP=first_try` starts one that is real"
    )
    make_run(workspace, OLD, status="interrupted")
    make_run(workspace, REAL)
    assert Run.newest_unfinished(workspace.runs, "first_try").id == OLD


def days_ahead(number):
    return (datetime.now(UTC) + timedelta(days=number)).isoformat(timespec="seconds")


def test_a_run_from_the_future_is_not_the_newest(workspace, caplog):
    make_run(workspace, OLD)
    make_run(workspace, REAL)
    assert Run.newest_finished(workspace.runs, "first_try").id == REAL
    assert not caplog.records, "nothing is said where nothing is strange"
    ahead = days_ahead(400)
    make_run(workspace, OLD, finished=ahead)
    with caplog.at_level(logging.WARNING):
        assert Run.newest_finished(workspace.runs, "first_try").id == REAL
    assert [record.getMessage() for record in caplog.records] == [
        f"first_try: run {OLD} says that it finished on {ahead}, which is in the future: its machine's clock was "
        f"wrong, or this one's is; {REAL} is taken for the newest run, name another one with --run"
    ]


def test_where_all_are_of_the_future_the_last_is_taken_and_it_is_said(workspace, caplog):
    make_run(workspace, OLD, finished=days_ahead(3))
    make_run(workspace, REAL, finished=days_ahead(2))
    assert Run.newest_finished(workspace.runs, "first_try").id == OLD
    assert f"{OLD} is taken for the newest run" in caplog.text


@pytest.mark.parametrize("finished", ["", "late", "2026-11-21", "2026-11-21T11:00:00", None])
def test_a_time_that_is_none_does_no_harm(workspace, finished):
    make_run(workspace, OLD, finished=finished)
    assert Run.newest_finished(workspace.runs, "first_try").id == OLD


def test_a_run_of_before_modes_were_written_is_real(workspace):
    folder = make_run(workspace, OLD)
    record = json.loads((folder / "run.json").read_text())
    assert "mode" not in record
    write_lines(folder / "run.json", json.dumps(record | {"mode": None}))
    assert Run.look(folder).is_real
