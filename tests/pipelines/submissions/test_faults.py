"""What goes wrong when something is submitted to Kaggle: it costs one of the day's, and is made once or not at all."""

import io

import pytest
from built_kernels import make_kernel
from kaggle_standin import Cut, Refusal, Reply
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.submissions.submit import submit

pytestmark = pytest.mark.usefixtures("no_key_anywhere")
RUN = "20261121-100000-bbbb"


@pytest.fixture
def run_submit(server, workspace, retries, tmp_path, monkeypatch):
    """Submits a finished run of a regression to the stand-in."""
    options = {"task": "regression", "metric": "rmse", "extra_metrics": ()}
    install_competition(monkeypatch, tmp_path / "table", host="kaggle", **options)
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "1,0")
    make_run(workspace, RUN, submission=("id,label", "1,0.5"))

    def run(**more):
        choice = {} if "kernel" in more else {"run": RUN}
        return submit(workspace, retries=retries, console=Console(file=io.StringIO()), **choice, **more)

    return run


@pytest.mark.parametrize("method", ["CreateSubmission", "CreateCodeSubmission"])
@pytest.mark.parametrize("fault", [Cut(is_done=True), Cut(), Refusal(500, "oops"), Refusal(429, "slow", retry_after=3)])
def test_a_submission_is_made_once(server, workspace, run_push, run_submit, method, fault):
    """It costs one of the day's; a lost answer is looked for in the list."""
    more = {}
    if method == "CreateCodeSubmission":
        make_kernel(workspace, "open('submission.csv', 'w').write('id,label\\n1,1\\n')")
        run_push(wait=True)
        server.competitions["tiny-task"].is_code = True
        more = {"kernel": "tiny-kernel"}
    server.faults[method].append(fault)
    entry = run_submit(**more)
    assert (entry.ref, entry.status, entry.public) == (5000, "COMPLETE", {"rmse": 0.81234})
    assert list(server.submissions) == [5000]
    assert read_submissions(Run.find(workspace.runs, RUN).submissions_file) == [entry]


def test_404_right_after_the_submission(server, run_submit):
    server.contests.num_unknown_polls = 2
    assert run_submit().public == {"rmse": 0.81234}


def test_the_daily_limit(server, workspace, run_submit, error_of):
    contest = server.competitions["tiny-task"]
    contest.num_today = contest.num_total = 5
    assert error_of(run_submit).startswith("tiny-task: all submissions of today (5) are used; Kaggle opens again at ")
    server.faults["GetSubmissionLimits"].append(Reply({"numToday": 4, "numTotal": 9, "numAllowedNow": 1}))
    assert error_of(run_submit) == (
        "tiny-task: Kaggle answered 400: Your team has used its daily Submission allowance (5) today; wait until "
        "midnight UTC"
    )
    assert (server.submissions, read_submissions(Run.find(workspace.runs, RUN).submissions_file)) == ({}, [])


def test_a_wrong_file_costs_no_submission(server, workspace, run_submit, error_of):
    write_lines(Run.find(workspace.runs, RUN).submission_file, "id,label", "2,0.5")
    assert error_of(run_submit).endswith("column id: 1 id is missing (1): predict every row of sample_submission.csv")
    assert server.called("StartSubmissionUpload") == []


def test_a_wrong_file_that_only_kaggle_knows_to_be_wrong(server, workspace, run_submit, error_of):
    server.competitions["tiny-task"].answers = b"id,label,Usage\n1,0,Public\n2,0,Private\n"
    assert error_of(run_submit) == (
        "tiny-task: submission 5000 failed: Submission Scoring Error: it must have 2 rows, the ids of the sample; hold "
        "the file against sample_submission.csv: same columns, same ids, no empty cell, the same types"
    )


def test_rules_that_are_not_accepted(server, run_submit, error_of):
    server.competitions["tiny-task"].rules_accepted = False
    assert "accept the rules at https://www.kaggle.com/competitions/tiny-task/rules" in error_of(run_submit)
    assert server.submissions == {}
