"""A pushed kernel to its score: its file, its version, its output on the local host; by hand where Kaggle insists."""

import io
import json

import pytest
from built_kernels import make_kernel
from kaggle_standin import KaggleStandIn, StandInCompetition, connect, sign_in
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.kaggle.retries import Retries
from pipelines.kernels.pushing.push import push
from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.submit import record_score, submit
from pipelines.tracking.jsonl import open_jsonl_tracker, read_run
from pipelines.workspace import Workspace

QUICK = Retries(first_pause=0.01, max_pause=0.05)
RUN = "20261121-100000-bbbb"
SAMPLE = b"id,label\na,0\nb,0\n"
ANSWERS = b"id,label,Usage\na,1,Public\nb,1,Private\n"
HIDDEN = {"test.csv": b"id,text\nx,one\ny,two\nz,\n", "sample_submission.csv": b"id,label\nx,0\ny,0\nz,0\n"}
# Says 1 for every row of whatever test set is mounted.
CELL = (
    "import os\n"
    "from pathlib import Path\n"
    "root = Path('/kaggle/input') if Path('/kaggle/input').is_dir() else Path('../input')\n"
    "rows = (root / 'competitions/tiny-task/test.csv').read_text().split('\\n')[1:-1]\n"
    "print(len(rows), os.environ.get('KAGGLE_IS_COMPETITION_RERUN'))\n"
    "Path('submission.csv').write_text('id,label\\n' + ''.join(row.split(',')[0] + ',1\\n' for row in rows))"
)


@pytest.fixture
def server(tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home")
    files = {"test.csv": b"id,text\na,one\nb,two\n", "sample_submission.csv": SAMPLE}
    with KaggleStandIn({"tiny-task": StandInCompetition(files, answers=ANSWERS)}) as server:
        connect(monkeypatch, server)
        yield server


@pytest.fixture
def contest(server):
    return server.competitions["tiny-task"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A regression on Kaggle, and a finished run of it that is tracked."""
    options = {"task": "regression", "metric": "rmse", "extra_metrics": ()}
    install_competition(monkeypatch, tmp_path / "table", host="kaggle", **options)
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", *SAMPLE.decode().split())
    folder = make_run(workspace, RUN, submission=("id,label", "a,1", "b,1"))
    tracker = open_jsonl_tracker(folder, competition="tiny-task")
    tracker.finish("FINISHED")
    record = json.loads((folder / "run.json").read_text())
    record["tracking"] = {"backend": "jsonl", "run_id": tracker.run_id, "uri": tracker.uri}
    write_lines(folder / "run.json", json.dumps(record))
    return workspace


@pytest.fixture
def pushed(server, workspace):
    make_kernel(workspace, CELL, competition_sources=["tiny-task"])
    return push(workspace, "tiny-kernel", wait=True, retries=QUICK, console=Console(file=io.StringIO()))


def run_submit(workspace: Workspace, screen: Console | None = None, **options):
    options = {"kernel": "tiny-kernel", "retries": QUICK} | options
    return submit(workspace, console=screen or Console(file=io.StringIO(), width=200), **options)


def error_of(workspace: Workspace, **options) -> str:
    with pytest.raises(PodiumError) as error:
        run_submit(workspace, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def tracked(workspace: Workspace):
    return read_run(Run.find(workspace.runs, RUN).path / "tracking")


def test_a_file_competition_takes_what_the_kernel_left(workspace, server, pushed):
    screen = Console(file=io.StringIO(), width=200)
    entry = run_submit(workspace, screen)
    assert (entry.ref, entry.status, entry.public) == (5000, "COMPLETE", {"rmse": 1.0})
    assert str(entry.kernel) == "alice/tiny-kernel/1"
    assert server.uploads["tok-1"] == b"id,label\na,1\nb,1\n"
    assert screen.file.getvalue().splitlines() == [
        f"alice/tiny-kernel: version 1, of run {RUN}",
        "submitted to tiny-task: ref 5000",
        "ref 5000; lb/public rmse 1.0000",
    ]
    (record,) = Ledger(workspace.ledger).records()
    assert (record.ref, str(record.kernel.kernel), record.kernel.version) == ("kaggle:5000", "alice/tiny-kernel", 1)
    run = tracked(workspace)
    assert run.metrics[-1].values == {"lb/public": 1.0}
    assert run.tags["submission.kernel"] == "alice/tiny-kernel/1"
    assert run.tags["submission.status"] == "COMPLETE"


def test_a_code_competition_runs_the_version_again_over_the_hidden_rows(workspace, server, contest, pushed):
    contest.is_code, contest.hidden = True, dict(HIDDEN)
    contest.answers = b"id,label,Usage\nx,1,Public\ny,0,Public\nz,1,Private\n"
    server.contests.num_unknown_polls, server.contests.num_pending_polls = 1, 1
    entry = run_submit(workspace)
    assert (entry.status, entry.public) == ("COMPLETE", {"rmse": 0.5})
    assert server.called("CreateCodeSubmission") == [
        {
            "competitionName": "tiny-task",
            "kernelOwner": "alice",
            "kernelSlug": "tiny-kernel",
            "kernelVersion": 1,
            "fileName": "submission.csv",
            "submissionDescription": f"first_try {RUN} alice/tiny-kernel/1",
        }
    ]
    assert tracked(workspace).metrics[-1].values == {"lb/public": 0.5}
    assert (server.rerun_output(5000) / "submission.csv").read_bytes() == b"id,label\nx,1\ny,1\nz,1\n"


def test_a_code_competition_takes_no_file(workspace, contest):
    contest.is_code = True
    assert error_of(workspace, kernel=None, experiment="first_try") == (
        "tiny-task: is a code competition: it takes a kernel's version and no file; push a kernel (make push K=…) and "
        "submit that: make submit K=…"
    )


def test_the_local_host_scores_what_the_kernel_left(workspace, pushed, server):
    host = workspace.local_host("tiny-task")
    write_lines(host / "solution.csv", "id,label,usage", "a,0,public", "b,0,private")
    num_requests = len(server.requests)
    entry = run_submit(workspace, host="local")
    assert (entry.host, entry.public, str(entry.kernel)) == ("local", {"rmse": 1.0}, "alice/tiny-kernel/1")
    assert len(server.requests) == num_requests, "nothing of this is Kaggle's"
    (workspace.build / "outputs" / "tiny-kernel" / "v1" / "submission.csv").unlink()
    assert error_of(workspace, host="local").endswith(
        "build/outputs/tiny-kernel/v1/submission.csv: no such file; pull the output: podium pull tiny-kernel"
    )


def test_where_the_api_refuses_the_button_is_named_and_the_score_recorded(workspace, server, contest, pushed):
    contest.is_code, contest.takes_kernels_by_api = True, False
    assert error_of(workspace) == (
        "tiny-task: Kaggle takes no submission of alice/tiny-kernel by its API (tiny-task: Kaggle refuses (403: "
        "Permission 'competitions.submit' was denied)); open https://www.kaggle.com/code/alice/tiny-kernel, choose "
        "Version 1, press Submit to Competition, and record what it scores: podium submit --kernel tiny-kernel "
        "--version 1 --ref REF --record SCORE"
    )
    assert read_submissions(Run.find(workspace.runs, RUN).submissions_file) == []
    num_requests = len(server.requests)
    entry = record_score(workspace, kernel="tiny-kernel", version=1, ref=777, public=0.25, private=0.5)
    assert len(server.requests) == num_requests
    assert read_submissions(Run.find(workspace.runs, RUN).submissions_file) == [entry]
    assert (entry.public, entry.private, str(entry.kernel)) == (
        {"rmse": 0.25},
        {"rmse": 0.5},
        "alice/tiny-kernel/1",
    )
    assert tracked(workspace).metrics[-1].values == {"lb/public": 0.25, "lb/private": 0.5}
    assert Ledger(workspace.ledger).find("kaggle:777").public == {"rmse": 0.25}


def test_which_version(workspace, server, pushed):
    assert error_of(workspace, kernel="other") == (
        "kernel other: was not pushed from here; push it with: make push K=other"
    )
    assert error_of(workspace, version=7) == (
        "kernel version 7 of tiny-kernel: was not pushed from here; push it with: make push K=tiny-kernel"
    )
    make_kernel(workspace, CELL + "\nraise SystemExit(3)", competition_sources=["tiny-task"])
    with pytest.raises(PodiumError, match="version 2 failed"):
        push(workspace, "tiny-kernel", wait=True, retries=QUICK, console=Console(file=io.StringIO()))
    server.competitions["tiny-task"].is_code = True
    assert error_of(workspace) == (
        "alice/tiny-kernel: version 2 ended as ERROR; correct it, push it and submit the new version: "
        "make push K=tiny-kernel"
    )
    assert str(run_submit(workspace, version=1).kernel) == "alice/tiny-kernel/1"


def test_a_version_that_trains_is_submitted_as_the_run_it_left(workspace, server):
    make_kernel(workspace, CELL, competition_sources=["tiny-task"], manifest={"mode": "train", "run": None})
    push(workspace, "tiny-kernel", wait=True, retries=QUICK, console=Console(file=io.StringIO()))
    assert error_of(workspace) == (
        "alice/tiny-kernel: version 1 trains a run that is not here; pull it and take it in: "
        f"podium runs import {workspace.build / 'outputs' / 'tiny-kernel' / 'v1'}"
    )
    assert run_submit(workspace, run=RUN).status == "COMPLETE"
    taken_in = {"kernel": "alice/tiny-kernel", "version": 1}
    make_run(workspace, "20261122-100000-cccc", imported=taken_in)
    run_submit(workspace, again=True)
    assert Ledger(workspace.ledger).find("kaggle:5001").run == "20261122-100000-cccc"


@pytest.mark.parametrize(
    ("cell", "error", "cure"),
    [
        ("raise ValueError('no text')", "Notebook Threw Exception", "rehearse with hidden, larger and empty test sets"),
        ("Path('submission.csv').unlink()", "Submission CSV Not Found", "the kernel must write submission.csv"),
        ("Path('submission.csv').write_text('id\\nx\\n')", "Submission Scoring Error", "hold the file against"),
        ("import time; time.sleep(60)", "Notebook Timeout", "the hidden test set is larger"),
    ],
)
def test_how_a_rerun_fails_stands_on_the_run(workspace, server, contest, cell, error, cure):
    hidden_only = f"if os.environ.get('KAGGLE_IS_COMPETITION_RERUN'):\n    {cell}"
    make_kernel(workspace, CELL, hidden_only, competition_sources=["tiny-task"])
    push(workspace, "tiny-kernel", wait=True, retries=QUICK, console=Console(file=io.StringIO()))
    contest.is_code, contest.hidden, server.kernels.max_seconds = True, dict(HIDDEN), 4.0
    contest.answers = b"id,label,Usage\nx,1,Public\n"
    message = error_of(workspace)
    assert message.startswith(f"tiny-task: submission 5000 failed: {error}")
    assert cure in message
    (entry,) = read_submissions(Run.find(workspace.runs, RUN).submissions_file)
    assert (entry.status, entry.error_class, entry.public) == ("ERROR", error, {})
    tags = tracked(workspace).tags
    assert (tags["submission.status"], tags["submission.error_class"]) == ("ERROR", error)
    assert Ledger(workspace.ledger).find("kaggle:5000").error.startswith(error)


def test_what_a_kernel_holds_of_a_smoke_or_overfit_run_is_named(workspace, server, pushed):
    path = Run.find(workspace.runs, RUN).path / "run.json"
    record = json.loads(path.read_text())
    write_lines(path, json.dumps(record | {"mode": "overfit"}))
    message = error_of(workspace)
    assert message.startswith(f"run {RUN}: is an overfit run: ")
    assert message.endswith("it cannot be submitted; make a real run with: make experiment EXP=first_try")
    write_lines(path, json.dumps(record | {"status": "interrupted"}))
    assert error_of(workspace) == (
        f"run {RUN}: is interrupted; go on with it: make kernel K=tiny-kernel RESUME=1, and push it again"
    )
    write_lines(path, json.dumps(record | {"mode": "smoke"}))
    screen = Console(file=io.StringIO(), width=200)
    entry = run_submit(workspace, screen)
    assert f"run {RUN} is a smoke run: a few steps over a few rows" in screen.file.getvalue()
    assert entry.description == f"first_try {RUN} alice/tiny-kernel/1 (a smoke run)"
    tracked_values = {key: value for row in tracked(workspace).metrics for key, value in row.values.items()}
    assert tracked_values["smoke/lb/public"] == entry.public["rmse"]
    assert "lb/public" not in tracked_values
