"""The folds that a run must have, and what is said where one is missing."""

import json
import shutil
from functools import partial

import pytest
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.run import Run
from pipelines.runs.folds import check_all_folds, check_finished, expected_folds, first_checkpoint, name_folds
from pipelines.runs.run import Run
from pipelines.runs.starting_point import take_over
from pipelines.search.encoders import find_checkpoint
from pipelines.workspace import Workspace

RUN, SMOKE = "20261121-100000-bbbb", "20261122-100000-cccc"
FOLDS = ("id,fold", "a,0", "b,-1", "c,1", "d,2")


def make(tmp_path, fold="each", folds=FOLDS, done=("fold0", "fold1", "fold2"), **manifest):
    folder = make_run(Workspace(tmp_path), RUN, config={"name": "first_try", "fold": fold}, **manifest)
    if folds:
        write_lines(folder / "folds.csv", *folds)
    for name in done:
        (folder / name / "checkpoint").mkdir(parents=True)
        write_lines(folder / name / "result.json", json.dumps({"checkpoint": "checkpoint"}))
    return Run(folder)


def error_of(action, *arguments):
    with pytest.raises(PodiumError) as error:
        action(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("each", ["fold0", "fold1", "fold2"]), ("1", ["fold1"]), (1, ["fold1"]), ("all", ["full"])],
)
def test_an_older_run_tells_its_folds_by_configuration_and_file(tmp_path, choice, expected):
    assert expected_folds(make(tmp_path, fold=choice)) == expected
    assert name_folds(str(choice), 3) == expected


def test_the_record_names_them_where_the_files_did_not_travel_along(tmp_path):
    run = make(tmp_path, folds=(), fold_names=["fold0", "fold1"], done=("fold0",))
    assert expected_folds(run) == ["fold0", "fold1"]
    assert error_of(check_all_folds, run) == (
        f"{run.path / 'fold1' / 'result.json'}: missing; put it back from a copy, or make the run again: make "
        "experiment EXP=first_try"
    )
    assert expected_folds(make(tmp_path / "older", folds=(), done=("fold0",))) == [], "nobody can know"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "() is no list of folds; needs fold0, fold1, … or full"),
        ("fold0", "'fold0' is not a list"),
        ([0], "0 is not a text"),
        ({"fold0": 1}, "{'fold0': 1} is not a list"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, names, words):
    run = make(tmp_path, fold_names=names)
    place = "fold_names.0" if names == [0] else "fold_names"
    assert error_of(expected_folds, run) == (
        f"{run.record_file}: {place}: {words}; put it back from a copy, or start a new run"
    )


@pytest.mark.parametrize("lines", [("id,fold",), ("id,fold", "a,zero"), ("id,fold", "a")])
def test_a_damaged_fold_file_is_named(tmp_path, lines):
    message = error_of(expected_folds, make(tmp_path, folds=lines))
    assert message.startswith(f"{tmp_path / 'runs' / 'first_try' / RUN / 'folds.csv'}: cannot be read (")


def test_a_whole_run_passes_and_each_gap_is_said(tmp_path):
    run = make(tmp_path)
    check_all_folds(run)
    assert first_checkpoint(run) == run.path / "fold0" / "checkpoint"
    result = run.path / "fold0" / "result.json"
    result.unlink()
    assert error_of(check_all_folds, run).startswith(f"{result}: missing; ")
    assert error_of(first_checkpoint, run).startswith(f"{result}: missing; ")
    for content in ("{", "[]", "{}", '{"checkpoint": 3}', '{"checkpoint": "../../../x"}', '{"checkpoint": "/x"}'):
        write_lines(result, content)
        assert error_of(check_all_folds, run).startswith(f"{result}: ")
    write_lines(result, '{"checkpoint": "another"}')
    gone = run.path / "fold0" / "another"
    assert error_of(check_all_folds, run) == (
        f"{gone}: no such folder, which its fold's result.json names as its weights; put it back"
    )


def test_a_fold_too_many_is_said(tmp_path):
    run = make(tmp_path, fold="0", done=("fold0", "fold1"))
    assert error_of(check_all_folds, run) == (
        f"{run.path / 'fold1'}: is no fold of this run, which has fold0; move it out of the run"
    )


def test_an_unfinished_run_is_to_be_finished(tmp_path):
    run = make(tmp_path, status="interrupted", done=("fold0",))
    assert error_of(check_finished, Run.look(run.path)) == (
        f"{run.path}: interrupted; finish it with: make resume RUN={RUN}"
    )
    assert error_of(check_all_folds, run) == (
        f"{run.path / 'fold1' / 'result.json'}: missing (fold1, fold2 of 3 folds are not there); finish it with: "
        f"make resume RUN={RUN}"
    )


def test_a_training_begins_with_the_first_fold_and_with_no_other_in_its_place(tmp_path):
    """A finished run whose fold 0 is gone is not begun from fold 1 without a word."""
    run = make(tmp_path, done=("fold1", "fold2"))
    begun = Run(tmp_path / "runs" / "second" / RUN)
    assert error_of(partial(take_over, "run:first_try", begun, kinds=["bert"])) == (
        f"run:first_try: {run.path} has no finished fold0; it has fold1, fold2"
    )


def test_a_search_encoder_is_a_real_run_of_its_experiment_or_any_run_by_its_id(tmp_path):
    workspace = Workspace(tmp_path)
    real = make(tmp_path)
    smoke = make_run(workspace, SMOKE, mode="smoke", fold_names=["fold0"])
    write_lines(smoke / "fold0" / "result.json", '{"checkpoint": "checkpoint"}')
    (smoke / "fold0" / "checkpoint").mkdir()
    assert find_checkpoint(workspace, "run:first_try") == real.path / "fold0" / "checkpoint"
    assert find_checkpoint(workspace, f"run:{SMOKE}") == smoke / "fold0" / "checkpoint"
    shutil.rmtree(real.path)
    assert "only smoke and overfit runs of it have finished" in error_of(find_checkpoint, workspace, "run:first_try")
