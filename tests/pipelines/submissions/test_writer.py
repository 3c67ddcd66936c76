"""Killed between any two stores: the next command brings board, run, ledger and tracker together."""

import io
import json
import os
import signal

import pytest
from kaggle_standin import KaggleStandIn, StandInCompetition, connect, sign_in
from killed_submits import FORK, quietly, read_board
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.competitions.local_host import LocalHost
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.retries import Retries
from pipelines.runs.submission import read_submissions
from pipelines.submissions import ledger as ledger_module
from pipelines.submissions import submit as submit_module
from pipelines.submissions import writer
from pipelines.submissions.journal import OpenIntent
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.show import list_submissions
from pipelines.submissions.submit import submit
from pipelines.tracking.jsonl import open_jsonl_tracker, read_run
from pipelines.workspace import Workspace

QUICK = Retries(first_pause=0.01, max_pause=0.05)
RUN = "20261121-100000-bbbb"
# Each step between the stores: the function that takes it, and what stands where when its process dies before and
# after it: lines on the board, on the run, records of the ledger, and whether the tracker was told.
LOCAL = {
    "the intent": (OpenIntent, "note", (0, 0, 0, False), (0, 0, 0, False)),
    "the board": (LocalHost, "submit", (0, 0, 0, False), (1, 0, 0, False)),
    "the run": (writer, "note_submission", (1, 0, 0, False), (1, 1, 0, False)),
    "the ledger": (ledger_module.Ledger, "write", (1, 1, 0, False), (1, 1, 1, False)),
    "the tracker": (writer.Writer, "_tell_tracker", (1, 1, 1, False), (1, 1, 1, True)),
    "striking out": (OpenIntent, "strike", (1, 1, 1, True), (1, 1, 1, True)),
}
KAGGLE = {
    "the host": (KaggleClient, "submit_file", (0, 0, 0, False), (1, 0, 0, False)),
    "the run": (writer, "note_submission", (1, 0, 0, False), (1, 1, 0, False)),
    "the ledger": (ledger_module.Ledger, "write", (1, 1, 0, False), (1, 1, 1, False)),
    "the score": (submit_module, "wait_for_score", (1, 1, 1, False), (1, 1, 1, False)),
    "the tracker": (writer.Writer, "_tell_tracker", (1, 1, 1, False), (1, 1, 1, True)),
    "striking out": (OpenIntent, "strike", (1, 1, 1, True), (1, 1, 1, True)),
}
WHEN = ["before", "after"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A finished run that is tracked, of a competition with a board of its own."""
    options = {"task": "regression", "metric": "rmse", "extra_metrics": ()}
    install_competition(monkeypatch, tmp_path / "table", **options)
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0", "b,0")
    write_lines(workspace.local_host("tiny-task") / "solution.csv", "id,label,usage", "a,0,public", "b,0,private")
    folder = make_run(workspace, RUN, submission=("id,label", "a,2", "b,1"))
    tracker = open_jsonl_tracker(folder, competition="tiny-task")
    tracker.finish("FINISHED")
    record = json.loads((folder / "run.json").read_text())
    record["tracking"] = {"backend": "jsonl", "run_id": tracker.run_id, "uri": tracker.uri}
    write_lines(folder / "run.json", json.dumps(record))
    return workspace


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home")
    with KaggleStandIn({"tiny-task": StandInCompetition({})}) as server:
        connect(monkeypatch, server)
        yield server


def killed_at(step, when, workspace, monkeypatch, **options):
    """Submit in a forked process that a SIGKILL ends right before or after its first call of the step's function."""
    owner, name = step
    real = getattr(owner, name)

    def die(*arguments, **keywords):
        if when == "after":
            real(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    def run():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            quietly(workspace, RUN, **options)

    process = FORK.Process(target=run)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def stores(workspace, num_sent):
    """Submissions of the host, lines of the run, records of the ledger, and whether the tracker was told."""
    run = workspace.runs / "first_try" / RUN
    records = Ledger(workspace.ledger).records()
    is_told = "submission.ref" in read_run(run / "tracking").tags
    return num_sent, len(read_submissions(run / "submissions.jsonl")), len(records), is_told


def num_lines(workspace):
    board = workspace.local_host("tiny-task") / "leaderboard.jsonl"
    return len(read_board(workspace)) if board.is_file() else 0


def check_settled(workspace, entry, num_sent, score):
    """All stores say the same of one submission, and nothing is left to do."""
    assert stores(workspace, num_sent) == (1, 1, 1, True)
    run = workspace.runs / "first_try" / RUN
    (record,) = Ledger(workspace.ledger).records()
    assert read_submissions(run / "submissions.jsonl") == [entry]
    told = (record.ref, record.submission_sha256, record.status, record.public)
    assert told == (entry.address, entry.sha256, "COMPLETE", {"rmse": score})
    recorded = read_run(run / "tracking")
    assert recorded.metrics[-1].values == {"lb/public": score}
    assert (recorded.tags["submission.ref"], recorded.tags["ledger.ref"]) == (str(entry.ref), entry.address)
    assert list((workspace.runs / ".unsettled").iterdir()) == []
    assert list(workspace.root.rglob("*.partial")) == []


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", LOCAL)
def test_a_kill_between_two_stores_of_a_local_submission(workspace, monkeypatch, step, when):
    owner, name, before, after = LOCAL[step]
    killed_at((owner, name), when, workspace, monkeypatch)
    assert stores(workspace, num_lines(workspace)) == (before if when == "before" else after)
    entry = submit(workspace, run=RUN, console=Console(file=io.StringIO()))
    check_settled(workspace, entry, num_lines(workspace), 2.0)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", KAGGLE)
def test_a_kill_between_two_stores_of_a_submission_to_kaggle(workspace, kaggle, monkeypatch, step, when):
    owner, name, before, after = KAGGLE[step]
    options = {"host": "kaggle", "retries": QUICK}
    killed_at((owner, name), when, workspace, monkeypatch, **options)
    assert stores(workspace, len(kaggle.submissions)) == (before if when == "before" else after)
    entry = submit(workspace, run=RUN, console=Console(file=io.StringIO()), **options)
    check_settled(workspace, entry, len(kaggle.submissions), 0.81234)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("step", LOCAL)
def test_the_ledger_is_complete_once_it_is_listed_and_the_tracker_is_told_later(
    workspace, monkeypatch, capfd, step, when
):
    """Listing asks no tracker, which may be far; what it is to be told waits for the next submit."""
    owner, name, before, after = LOCAL[step]
    killed_at((owner, name), when, workspace, monkeypatch)
    num_sent, *_, is_told = before if when == "before" else after
    console = Console(file=io.StringIO(), width=200)
    list_submissions(workspace, console)
    assert stores(workspace, num_lines(workspace)) == (num_sent, num_sent, num_sent, is_told)
    assert len(console.file.getvalue().splitlines()) == 1 + num_sent
    said = capfd.readouterr().err
    list_submissions(workspace, console)
    assert capfd.readouterr().err == "", f"once is enough: {said}"
    entry = submit(workspace, run=RUN, console=Console(file=io.StringIO()))
    check_settled(workspace, entry, num_lines(workspace), 2.0)


def test_a_disk_that_refuses_the_ledger_is_said_and_the_rest_is_written(workspace):
    write_lines(workspace.ledger, "a file where the folder should be")
    screen = Console(file=io.StringIO(), width=400)
    entry = submit(workspace, run=RUN, console=screen)
    assert "the ledger could not be written (" in screen.file.getvalue()
    assert len(list((workspace.runs / ".unsettled").glob("*.json"))) == 1
    workspace.ledger.unlink()
    assert submit(workspace, run=RUN, console=screen) == entry
    check_settled(workspace, entry, num_lines(workspace), 2.0)


def test_an_intent_of_the_version_before_is_gone_on_with(workspace, kaggle):
    """Its file holds what it held then, the state of its submission among it."""
    entry = submit(workspace, run=RUN, host="kaggle", retries=QUICK, console=Console(file=io.StringIO()))
    kept = ("status", "host", "competition", "ref", "sha256", "description", "time")
    facts = {name: entry.entries()[name] for name in kept} | {"process": 1, "run": f"first_try/{RUN}"}
    path = write_lines(workspace.runs / ".unsettled" / "0123456789abcdef.json", json.dumps(facts))
    screen = Console(file=io.StringIO(), width=400)
    submit(workspace, run=RUN, host="kaggle", retries=QUICK, console=screen)
    assert "kaggle:5000: the record that an earlier command left unfinished is complete" in screen.file.getvalue()
    assert not path.exists()
