"""A submission that was killed, raced or left half recorded is whole once the next submit has run."""

import io
import json
import os
import shutil

import pytest
from kaggle_standin import KaggleStandIn, StandInCompetition, connect, sign_in
from killed_submits import (
    FORK,
    check_agreement,
    count_calls,
    in_a_process,
    killed_submit,
    make_tracked_runs,
    moments,
    quietly,
    raced_submits,
    read_board,
)
from rich.console import Console
from tiny_competition import install_competition, make_competition, make_run, write_lines

from pipelines.competitions.local_host import LocalHost
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.retries import Retries
from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.submissions import submit as submit_stage
from pipelines.submissions import writer
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.submit import submit
from pipelines.tracking import opening as tracking
from pipelines.tracking.tracker import NullTracker
from pipelines.workspace import Workspace

QUICK = Retries(first_pause=0.01, max_pause=0.05)
RUN, OTHER = "20261121-100000-bbbb", "20261122-100000-cccc"
GOOD = ("id,label", "a,2", "b,1")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    options = {"task": "regression", "metric": "rmse", "extra_metrics": (), "daily_limit": 60}
    install_competition(monkeypatch, tmp_path / "table", **options)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0", "b,0")
    write_lines(workspace.local_host("tiny-task") / "solution.csv", "id,label,usage", "a,0,public", "b,0,private")
    return workspace


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=300)


def entries_of(workspace, run=RUN):
    return read_submissions(Run.find(workspace.runs, run).submissions_file)


def test_killed_and_raced_submits_lose_nothing(workspace, database_template):
    shutil.copy(database_template, workspace.mlflow_db)
    runs = make_tracked_runs(workspace, 4)
    total = in_a_process(lambda: count_calls(lambda: quietly(workspace, runs[0])))
    for moment in moments(total, 4, seed=7):
        assert killed_submit(workspace, runs[1], moment, again=True) == -9
    assert raced_submits(workspace, runs, again=True) == [0, 0, 0, 0]
    refs = check_agreement(workspace)
    assert refs == list(range(1, len(refs) + 1))
    assert 5 <= len(refs) <= 9
    entry = in_a_process(lambda: quietly(workspace, runs[0]))
    assert entry.ref == max(line["ref"] for line in read_board(workspace) if line["run"] == runs[0])
    assert len(read_board(workspace)) == len(refs), "what was sent is not sent again"


def test_four_at_once_of_the_same_bytes_are_one_submission(workspace):
    make_run(workspace, RUN, submission=GOOD)
    assert raced_submits(workspace, [RUN] * 4) == [0, 0, 0, 0]
    assert [line["ref"] for line in read_board(workspace)] == [1]
    assert [entry.ref for entry in entries_of(workspace)] == [1]
    assert [record.ref for record in Ledger(workspace.ledger).records()] == ["local:tiny_task:1"]


@pytest.mark.parametrize("lost", ["submissions.jsonl", "record", "both", "torn"])
def test_what_a_kill_of_an_older_version_left_out_is_completed(workspace, screen, lost):
    folder = make_run(workspace, RUN, submission=GOOD)
    entry = submit(workspace, run=RUN, console=screen)
    ledger = workspace.ledger / "local" / "tiny_task" / f"1@{RUN}.json"
    if lost == "torn":
        path = folder / "submissions.jsonl"
        path.write_bytes(path.read_bytes()[:-30])
    if lost in ("submissions.jsonl", "both"):
        (folder / "submissions.jsonl").unlink()
    if lost in ("record", "both"):
        ledger.unlink()
    make_run(workspace, OTHER, submission=("id,label", "a,3", "b,1"))
    assert submit(workspace, run=OTHER, console=screen).ref == 2
    assert entries_of(workspace) == [entry]
    records = {record.ref: record for record in Ledger(workspace.ledger).records()}
    assert sorted(records) == ["local:tiny_task:1", "local:tiny_task:2"]
    assert records["local:tiny_task:1"].public == {"rmse": 2.0}
    assert "local:tiny_task:1: the record that an earlier command left unfinished is complete" in screen.file.getvalue()
    before = [path.read_bytes() for path in (ledger, folder / "submissions.jsonl")]
    submit(workspace, run=OTHER, console=screen)
    assert [path.read_bytes() for path in (ledger, folder / "submissions.jsonl")] == before


def test_a_tracker_that_was_away_is_told_by_the_next_submit(workspace, screen, monkeypatch):
    make_run(workspace, RUN, submission=GOOD)
    make_run(workspace, OTHER, submission=("id,label", "a,3", "b,1"))
    told = []

    class Tracker(NullTracker):
        def log_metrics(self, metrics):
            told.append(dict(metrics))

        def log_tags(self, tags):
            told.append(tags["submission.ref"])

        def finish(self, status):
            pass

    def away(workspace, run_dir, place, **options):
        raise ConnectionError("the server is away")

    monkeypatch.setattr(tracking, "reopen_tracker", away)
    submit(workspace, run=RUN, console=screen)
    assert "the tracker could not be told (the server is away), which the next `podium submit` tries again" in (
        screen.file.getvalue()
    )
    monkeypatch.setattr(tracking, "reopen_tracker", lambda workspace, run_dir, place, **options: Tracker())
    submit(workspace, run=OTHER, console=screen)
    assert told == [{"lb/public": 2.0}, "1", {"lb/public": 3.0}, "2"]
    submit(workspace, run=OTHER, console=screen)
    assert "1" not in told[4:]


def test_a_copied_run_whose_database_stayed_behind_says_where_its_score_went(workspace, screen, tmp_path):
    (run,) = make_tracked_runs(workspace, 1)
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    copy.mlflow_db.unlink()
    submit(copy, run=run, console=screen)
    said = screen.file.getvalue()
    assert f"the score of run {run} went to sqlite:///{workspace.mlflow_db}, where its MLflow run is\n" in said
    assert not copy.mlflow_db.exists()


def test_a_disk_that_is_full_after_the_score_loses_no_submission(workspace, screen, monkeypatch):
    make_run(workspace, RUN, submission=GOOD)
    real = writer.note_submission

    def refuse(path, submission):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(writer, "note_submission", refuse)
    with pytest.raises(PodiumError) as error:
        submit(workspace, run=RUN, console=screen)
    path = Run.find(workspace.runs, RUN).submissions_file
    assert str(error.value) == (
        f"submission 1 was made, but {path}: No space left on device; free some space or permissions; the next "
        "`podium submit` completes its record, without sending it again"
    )
    monkeypatch.setattr(writer, "note_submission", real)
    assert submit(workspace, run=RUN, console=screen).ref == 1
    assert [entry.ref for entry in entries_of(workspace)] == [1]
    assert len(Ledger(workspace.ledger).records()) == 1


# -- Kaggle ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(workspace, tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home")
    with KaggleStandIn({"tiny-task": StandInCompetition({})}) as server:
        connect(monkeypatch, server)
        yield server


def die(*arguments):
    os._exit(9)


def submit_and_die(workspace, monkeypatch, owner, name, **options):
    """In another process, which ends where it would call the function."""

    def run():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            quietly(workspace, RUN, host="kaggle", retries=QUICK, **options)

    process = FORK.Process(target=run)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 9


@pytest.mark.parametrize("num_others", [0, 2])
def test_a_kill_after_kaggle_took_it_sends_nothing_twice(workspace, kaggle, screen, monkeypatch, num_others):
    make_run(workspace, RUN, submission=GOOD)
    for _ in range(num_others):  # the same description, sent before
        submit(workspace, run=RUN, host="kaggle", again=True, retries=QUICK, console=screen)
    submit_and_die(workspace, monkeypatch, writer.Writer, "write", again=True)
    assert len(kaggle.submissions) == num_others + 1
    assert len(entries_of(workspace)) == num_others
    entry = submit(workspace, run=RUN, host="kaggle", retries=QUICK, console=screen)
    assert len(kaggle.submissions) == num_others + 1
    assert (entry.ref, entry.status, entry.public) == (5000 + num_others, "COMPLETE", {"rmse": 0.81234})
    assert entries_of(workspace)[-1] == entry
    assert Ledger(workspace.ledger).find(f"kaggle:{5000 + num_others}").public == {"rmse": 0.81234}
    assert list((workspace.runs / ".unsettled").glob("*.json")) == []


def test_a_kill_before_kaggle_took_it_sends_it_then(workspace, kaggle, screen, monkeypatch):
    make_run(workspace, RUN, submission=GOOD)
    submit_and_die(workspace, monkeypatch, KaggleClient, "submit_file")
    assert len(list((workspace.runs / ".unsettled").glob("*.json"))) == 1
    assert kaggle.submissions == {}
    assert submit(workspace, run=RUN, host="kaggle", retries=QUICK, console=screen).ref == 5000
    assert len(kaggle.submissions) == 1
    assert list((workspace.runs / ".unsettled").glob("*.json")) == []


def test_a_kill_while_the_score_is_waited_for(workspace, kaggle, screen, monkeypatch):
    make_run(workspace, RUN, submission=GOOD)
    submit_and_die(workspace, monkeypatch, submit_stage, "_scored")
    assert [entry.status for entry in entries_of(workspace)] == ["PENDING"]
    entry = submit(workspace, run=RUN, host="kaggle", retries=QUICK, console=screen)
    assert (entry.ref, entry.status) == (5000, "COMPLETE")
    assert len(kaggle.submissions) == 1


# -- the same once more ----------------------------------------------------------------------------------------------


def test_kaggle_is_not_sent_the_same_bytes_by_any_run(workspace, kaggle, screen):
    make_run(workspace, RUN, submission=GOOD)
    make_run(workspace, OTHER, submission=GOOD)
    options = {"host": "kaggle", "retries": QUICK, "console": screen}
    first = submit(workspace, run=RUN, **options)
    assert submit(workspace, run=RUN, **options) == first
    assert screen.file.getvalue().splitlines()[-1] == (
        "this file is submission 5000 (rmse 0.8123); AGAIN=1 sends it once more"
    )
    assert submit(workspace, run=OTHER, **options) == first
    assert screen.file.getvalue().splitlines()[-1] == (
        f"this file is submission 5000 of run {RUN} (rmse 0.8123); AGAIN=1 sends it once more"
    )
    assert len(kaggle.submissions) == 1
    shutil.rmtree(Run.find(workspace.runs, RUN).path)
    assert submit(workspace, run=OTHER, **options).ref == 5000, "the ledger knows"
    assert submit(workspace, run=OTHER, again=True, **options).ref == 5001
    assert submit(workspace, run=OTHER, **{**options, "host": "local"}).ref == 1, "another host has not seen it"


def test_one_that_ended_in_an_error_was_not_sent(workspace, kaggle, screen):
    make_run(workspace, RUN, submission=GOOD)
    kaggle.competitions["tiny-task"].error = "Evaluation raised"
    options = {"host": "kaggle", "retries": QUICK, "console": screen}
    with pytest.raises(PodiumError, match="submission 5000 failed"):
        submit(workspace, run=RUN, **options)
    kaggle.competitions["tiny-task"].error = ""
    assert submit(workspace, run=RUN, **options).ref == 5001


def test_a_boards_damaged_line_is_named(workspace, screen):
    make_run(workspace, RUN, submission=GOOD)
    submit(workspace, run=RUN, console=screen)
    board = workspace.local_host("tiny-task") / "leaderboard.jsonl"
    sound = json.loads(board.read_text())
    for damaged, what in (
        ([1], "damaged (holds no JSON object: [1])"),
        ({key: value for key, value in sound.items() if key != "sha256"}, "sha256: missing"),
        (
            sound | {"time": "yesterday"},
            "time: 'yesterday' is no time with a zone; needs one such as 2026-11-21T12:00:00+00:00",
        ),
        (sound | {"public": 3}, "public: 3 is not an object"),
        (sound | {"ref": "one"}, "ref: 'one' is not a whole number"),
    ):
        board.write_text(json.dumps(sound) + "\n" + json.dumps(damaged) + "\n")
        with pytest.raises(PodiumError) as error:
            submit(workspace, run=RUN, again=True, console=screen)
        assert str(error.value) == f"{board}: line 2: {what}; delete that line (its file stays under submissions/)"
    board.write_text(json.dumps(sound | {"ref": 4}) + "\n")
    assert submit(workspace, run=RUN, again=True, console=screen).ref == 5, "no ref is given twice"


def test_a_changed_metric_scores_the_board_anew(workspace, screen):
    make_run(workspace, RUN, submission=GOOD)
    submit(workspace, run=RUN, console=screen)
    folder = workspace.local_host("tiny-task")
    write_lines(folder / "baselines" / "ones.csv", "id,label", "a,1", "b,1")
    host = LocalHost(folder, make_competition(task="regression", metric="mae", extra_metrics=()))
    rows = [(row.name, row.public) for row in host.leaderboard()]
    assert rows == [("ones", {"mae": 1.0}), ("first_try", {"mae": 2.0})]
    assert [row.name for row in host.baselines()] == ["ones"]
    (folder / "submissions" / "00001.csv").unlink()
    assert [row.name for row in host.leaderboard()] == ["ones", "first_try"], "without a score by it, a row stands last"
