"""From a run's submission.csv to a score on the run, on the local host and on a stand-in of Kaggle."""

import io
import json
import re
from datetime import UTC, datetime

import pytest
from kaggle_standin import KaggleStandIn, StandInCompetition, connect, sign_in
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.submissions.submit import submit
from pipelines.tracking.jsonl import open_jsonl_tracker, read_run
from pipelines.workspace import Workspace

GOOD = ("id,label", "a,2.0", "b,0.0", "c,2.0", "d,0.0")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A regression of four rows: a and c public, b and d private, all answers 0; baselines score 1 and 3."""
    install_competition(
        monkeypatch, tmp_path / "table", task="regression", metric="rmse", extra_metrics=("mae",), daily_limit=2
    )
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0", "b,0", "c,0", "d,0")
    host = workspace.local_host("tiny-task")
    write_lines(host / "solution.csv", "id,label,usage", "a,0,public", "b,0,private", "c,0,public", "d,0,private")
    write_lines(host / "baselines" / "ones.csv", "id,label", "a,1", "b,1", "c,1", "d,1")
    write_lines(host / "baselines" / "threes.csv", "id,label", "a,3", "b,3", "c,3", "d,3")
    return workspace


@pytest.fixture
def screen():
    """What is printed where no terminal reads it."""
    return Console(file=io.StringIO(), width=200)


def text_of(screen: Console) -> str:
    return screen.file.getvalue()


def error_of(workspace: Workspace, **options) -> str:
    with pytest.raises(PodiumError) as error:
        submit(workspace, console=Console(file=io.StringIO()), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_newest_finished_run_is_submitted_and_told_everywhere(workspace, screen):
    make_run(workspace, "20261120-100000-aaaa", submission=GOOD)
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    make_run(workspace, "20261122-100000-cccc", status="failed")
    tracker = open_jsonl_tracker(folder, competition="tiny-task")
    tracker.finish("FINISHED")
    record = json.loads((folder / "run.json").read_text())
    record["tracking"] = {"backend": "jsonl", "run_id": tracker.run_id, "uri": tracker.uri}
    write_lines(folder / "run.json", json.dumps(record))

    entry = submit(workspace, experiment="first_try", console=screen)

    assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "NOW", text_of(screen)).splitlines() == [
        "first_try: its newest finished run is 20261121-100000-bbbb",
        "  place  name       run                   rmse ↓   mae ↓  submitted (UTC)",
        "      1  ones       baseline              1.0000  1.0000",
        "*     2  first_try  20261121-100000-bbbb  2.0000  2.0000  NOW",
        "      3  threes     baseline              3.0000  3.0000",
        "ref 1; lb/public rmse 2.0000; place 2 of 3; 1 of 2 submissions left today",
    ]
    assert entry.public == {"rmse": 2.0, "mae": 2.0}
    assert read_submissions(Run.find(workspace.runs, "20261121-100000-bbbb").submissions_file) == [entry]
    kept = {"time": entry.time, "sha256": entry.sha256, "public": entry.public}
    assert entry.entries() == kept | {
        "host": "local",
        "competition": "tiny_task",
        "ref": 1,
        "status": "COMPLETE",
        "place": 2,
        "rows": 3,
        "description": "first_try 20261121-100000-bbbb",
    }
    tracked = read_run(folder / "tracking")
    assert tracked.metrics[-1].values == {"lb/public": 2.0, "lb/mae": 2.0}
    assert (tracked.tags["submission.ref"], tracked.tags["submission.host"]) == ("1", "local")
    assert tracked.status == "FINISHED"


def test_private_scores_only_where_asked(workspace, screen):
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    submit(workspace, run="20261121-100000-bbbb", console=screen)
    assert "private" not in (folder / "submissions.jsonl").read_text() + text_of(screen)
    entry = submit(workspace, run="20261121-100000-bbbb", reveal=True, console=screen)
    assert entry.private == {"rmse": 0.0, "mae": 0.0}
    assert "private" in text_of(screen)
    assert "this file is submission 1 (rmse 2.0000); AGAIN=1 sends it once more" in text_of(screen)
    assert read_submissions(Run.find(workspace.runs, folder.name).submissions_file) == [entry]


def test_an_unreachable_tracker_loses_no_score(workspace, screen):
    folder = make_run(
        workspace, "20261121-100000-bbbb", submission=GOOD, tracking={"backend": "mlflow", "run_id": "1", "uri": "x"}
    )
    entry = submit(workspace, run="20261121-100000-bbbb", console=screen)
    assert json.loads((folder / "submissions.jsonl").read_text()) == entry.entries()
    last = text_of(screen).splitlines()[-1]
    assert last.startswith("the tracker could not be told (")
    assert last.endswith(f"; the score stands in {folder / 'submissions.jsonl'}")


def test_which_run(workspace):
    runs = workspace.runs
    assert error_of(workspace) == "nothing to submit: name an experiment (EXP=...) or a run (RUN=...)"
    assert error_of(workspace, experiment="first_try") == (
        f"experiment first_try: no runs under {runs}; run it first: make experiment EXP=first_try"
    )
    make_run(workspace, "20261121-100000-bbbb", status="running")
    assert error_of(workspace, experiment="first_try") == (
        "experiment first_try: none of its runs has finished (the newest, 20261121-100000-bbbb, is running); "
        "finish it with: make resume EXP=first_try"
    )
    assert error_of(workspace, experiment="frist_try") == (
        f"experiment frist_try: no runs under {runs}; did you mean first_try?"
    )
    assert error_of(workspace, run="20261121-100000-bbbc") == (
        f"run 20261121-100000-bbbc: no such run under {runs}; did you mean 20261121-100000-bbbb?"
    )
    assert (
        error_of(workspace, run="nothing") == f"run nothing: no such run under {runs}; `podium compare` lists the runs"
    )
    make_run(workspace, "20261121-100000-bbbb", experiment="other")
    assert error_of(workspace, run="20261121-100000-bbbb") == (
        "run 20261121-100000-bbbb: the id names several runs: "
        "write one of first_try/20261121-100000-bbbb, other/20261121-100000-bbbb"
    )
    assert error_of(workspace, run="other/20261121-100000-bbbb", experiment="first_try") == (
        "run 20261121-100000-bbbb: is of experiment other, not of first_try; leave EXP out or write EXP=other"
    )


def test_a_run_is_found_by_id_by_name_and_by_path(workspace):
    folder = make_run(workspace, "20261121-100000-bbbb", experiment="smoke/t5")
    assert folder.parent.name == "smoke-t5"
    for name in ("20261121-100000-bbbb", "smoke/t5/20261121-100000-bbbb", str(folder)):
        assert Run.find(workspace.runs, name).path == folder
    assert Run.newest_finished(workspace.runs, "smoke/t5").path == folder
    (folder / "run.json").write_text("{")
    (damaged,) = Run.list(workspace.runs)
    assert (damaged.status, damaged.id, damaged.experiment) == ("damaged", "20261121-100000-bbbb", "smoke-t5")
    assert error_of(workspace, run="20261121-100000-bbbb") == (
        f"{folder / 'run.json'}: unreadable (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)); restore the file or train again"
    )


def test_the_run_that_finished_last_is_the_newest(workspace):
    make_run(workspace, "20261121-100000-aaaa", finished="2026-11-22T09:00:00+00:00")
    make_run(workspace, "20261121-110000-bbbb", finished="2026-11-22T08:00:00+00:00")
    assert Run.newest_finished(workspace.runs, "first_try").id == "20261121-100000-aaaa"


def test_choices_that_do_not_fit(workspace):
    make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    assert error_of(workspace, experiment="first_try", competition="place_names") == (
        "run 20261121-100000-bbbb: is of competition tiny_task, not of place_names; "
        "submit it to tiny_task or choose a run of place_names (`podium compare`)"
    )
    assert error_of(workspace, experiment="first_try", host="huggingface") == (
        "host huggingface: no such host; choose one of local, kaggle"
    )
    submit(workspace, experiment="first_try", competition="tiny-task", console=Console(file=io.StringIO()))


def test_a_bad_file_is_refused_before_any_host_sees_it(workspace):
    folder = make_run(workspace, "20261121-100000-bbbb")
    path = folder / "submission.csv"
    assert error_of(workspace, experiment="first_try") == f"{path}: no such file; `make predict` writes it"
    write_lines(path, *GOOD[:-1])
    assert error_of(workspace, experiment="first_try") == (
        f"{path}: column id: 1 id is missing (d): predict every row of sample_submission.csv"
    )
    write_lines(path, *GOOD)
    (workspace.local_host("tiny-task") / "solution.csv").unlink()
    assert error_of(workspace, experiment="first_try").endswith("make it with: podium data prepare tiny_task")
    (workspace.data_dir("tiny-task") / "sample_submission.csv").unlink()
    assert "sample_submission.csv: no such file" in error_of(workspace, experiment="first_try")
    assert not (folder / "submissions.jsonl").exists()


def test_the_local_limit(workspace, screen):
    make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    for _ in range(2):
        submit(workspace, experiment="first_try", again=True, console=screen)
    assert error_of(workspace, experiment="first_try", again=True).startswith("tiny_task: all 2 submissions of ")
    assert submit(workspace, experiment="first_try", console=screen).ref == 2, "what was sent needs no place"


def test_a_long_leaderboard_shows_its_head_and_the_own_row(workspace, screen):
    for number in range(25):
        write_lines(workspace.local_host("tiny-task") / "baselines" / f"b{number:02d}.csv", *GOOD)
    make_run(workspace, "20261121-100000-bbbb", submission=("id,label", "a,9", "b,9", "c,9", "d,9"))
    submit(workspace, experiment="first_try", console=screen)
    lines = text_of(screen).splitlines()
    assert len(lines) == 1 + 1 + 21 + 1 + 1
    assert lines[22].startswith("*    28  first_try")
    assert lines[23] == "... 28 rows in all"


@pytest.fixture
def kaggle(workspace, tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home")
    with KaggleStandIn({"tiny-task": StandInCompetition({})}) as server:
        connect(monkeypatch, server)
        yield server


def test_kaggle_scores_a_file(workspace, kaggle, screen):
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    kaggle.contests.num_unknown_polls = 1
    entry = submit(workspace, experiment="first_try", host="kaggle", message="fold 0 only", console=screen)
    assert (entry.host, entry.ref, entry.status) == ("kaggle", 5000, "COMPLETE")
    assert entry.public == {"rmse": 0.81234}
    assert text_of(screen).splitlines()[1:] == ["submitted to tiny-task: ref 5000", "ref 5000; lb/public rmse 0.8123"]
    assert kaggle.uploads["tok-1"] == (folder / "submission.csv").read_bytes()
    assert kaggle.called("CreateSubmission")[0]["submissionDescription"] == "fold 0 only"
    lines = [json.loads(line) for line in (folder / "submissions.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["PENDING", "COMPLETE"]
    assert read_submissions(Run.find(workspace.runs, "20261121-100000-bbbb").submissions_file) == [entry]


def test_waiting_is_taken_up_again_without_a_second_submission(workspace, kaggle, screen):
    make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    kaggle.contests.num_pending_polls = 1
    options = {"experiment": "first_try", "host": "kaggle"}
    assert error_of(workspace, patience_seconds=0, **options) == (
        "tiny-task: submission 5000 has no score after 0 s; see "
        "https://www.kaggle.com/competitions/tiny-task/submissions, or submit again to go on waiting"
    )
    entry = submit(workspace, console=screen, **options)
    assert (entry.ref, entry.public) == (5000, {"rmse": 0.81234})
    assert len(kaggle.submissions) == 1
    assert "ref 5000 was submitted at " in text_of(screen)
    submit(workspace, console=screen, again=True, **options)
    assert len(kaggle.submissions) == 2, "a scored submission is not waited for again"


def test_kaggle_limits_are_read_first(workspace, kaggle):
    make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    tiny = kaggle.competitions["tiny-task"]
    tiny.num_today = tiny.num_total = 5
    before = datetime.now(UTC)
    message = error_of(workspace, experiment="first_try", host="kaggle")
    start, opens = message.split("; Kaggle opens again at ")
    assert start == "tiny-task: all submissions of today (5) are used"
    assert datetime.strptime(opens, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC) > before
    tiny.rules_accepted = False
    assert error_of(workspace, experiment="first_try", host="kaggle") == (
        "tiny-task: you have not joined: accept the rules at https://www.kaggle.com/competitions/tiny-task/rules"
    )
    assert kaggle.uploads == {}


def test_a_submission_that_kaggle_cannot_score(workspace, kaggle):
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    kaggle.competitions["tiny-task"].error = "Evaluation raised"
    assert error_of(workspace, experiment="first_try", host="kaggle") == (
        "tiny-task: submission 5000 failed: Evaluation raised; hold the file against sample_submission.csv: same "
        "columns, same ids, no empty cell, the same types"
    )
    (entry,) = read_submissions(Run.find(workspace.runs, folder.name).submissions_file)
    assert (entry.status, entry.error, entry.public) == ("ERROR", "Evaluation raised", {})
    assert entry.error_class == "Submission Scoring Error"


def test_private_scores_of_a_closed_competition_are_kept(workspace, kaggle, screen):
    make_run(workspace, "20261121-100000-bbbb", submission=GOOD)
    kaggle.competitions["tiny-task"].private_score = "0.7"
    assert submit(workspace, experiment="first_try", host="kaggle", console=screen).private == {"rmse": 0.7}


def test_a_smoke_run_is_submitted_by_its_id_alone_and_named(workspace, screen):
    make_run(workspace, "20261120-100000-aaaa", submission=GOOD)
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD, mode="smoke")
    assert submit(workspace, experiment="first_try", console=screen).description == "first_try 20261120-100000-aaaa"
    assert "smoke" not in text_of(screen)
    entry = submit(workspace, run="20261121-100000-bbbb", again=True, console=screen)
    assert entry.description == "first_try 20261121-100000-bbbb (a smoke run)"
    assert json.loads((folder / "submissions.jsonl").read_text()) == entry.entries()
    lines = text_of(screen).splitlines()
    assert (
        "run 20261121-100000-bbbb is a smoke run: a few steps over a few rows, whose scores and predictions say nothing"
        in lines
    )
    assert lines[-2].startswith("ref 2, a smoke run; lb/public rmse 2.0000; ")


@pytest.mark.parametrize("submission", [GOOD, ()])
def test_an_overfit_run_cannot_be_submitted(workspace, submission):
    folder = make_run(workspace, "20261121-100000-bbbb", submission=submission, mode="overfit")
    assert error_of(workspace, run="20261121-100000-bbbb") == (
        "run 20261121-100000-bbbb: is an overfit run: one batch learned by heart and scored on its own training rows, "
        "so that its scores and predictions say nothing, and it cannot be submitted; make a real run with: "
        "make experiment EXP=first_try"
    )
    assert not (folder / "submissions.jsonl").exists()


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_cannot_be_submitted(workspace, status):
    folder = make_run(workspace, "20261121-100000-bbbb", submission=GOOD, status=status)
    assert error_of(workspace, run="20261121-100000-bbbb") == (
        f"{folder}: {status}; finish it with: make resume RUN=20261121-100000-bbbb"
    )
    assert not workspace.ledger.exists()
