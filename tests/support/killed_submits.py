"""Submits that are killed at a seeded moment, or race each other, and what board, run, ledger and MLflow hold then.

Each one runs in a forked process: what it imports is imported already, so that a kill falls into the work.
"""

import io
import json
import multiprocessing
import os
import random
import signal
import sys

from project import ROOT
from rich.console import Console
from tiny_competition import make_run, write_lines

from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.submit import submit

FORK = multiprocessing.get_context("fork")
PACKAGES = tuple(str(ROOT / name) + os.sep for name in ("components", "pipelines"))


def make_tracked_runs(workspace, num_runs):
    """Finished runs with different submissions; each has a run in the workspace's MLflow database."""
    write_lines(workspace.data_dir("tiny-task") / "sample_submission.csv", "id,label", "a,0", "b,0")
    write_lines(workspace.local_host("tiny-task") / "solution.csv", "id,label,usage", "a,0,public", "b,0,private")

    def track():
        from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
        from pipelines.tracking.tracker import tracking_record

        for number in range(num_runs):
            name = f"20261121-1000{number:02d}-aaaa"
            folder = make_run(workspace, name, submission=("id,label", f"a,{number + 1}", "b,0"))
            tracker = open_mlflow_tracker(workspace, competition="tiny-task", run_name=name, run_dir=folder)
            tracker.finish("FINISHED")
            record = json.loads((folder / "run.json").read_text()) | {"tracking": tracking_record(tracker).entries()}
            write_lines(folder / "run.json", json.dumps(record))

    in_a_process(track)
    return sorted(path.parent.name for path in workspace.runs.glob("*/*/run.json"))


def in_a_process(function, *arguments):
    """What a function answers in a process of its own: MLflow's connections must not be forked."""
    results = FORK.SimpleQueue()
    process = FORK.Process(target=lambda: results.put(function(*arguments)))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == 0
    return results.get()


def quietly(workspace, run, **options):
    return submit(workspace, run=run, console=Console(file=io.StringIO()), **options)


def count_calls(function, kill_at=None):
    """How many functions of podium are entered or left; a SIGKILL at the number `kill_at`."""
    count = 0

    def watch(frame, event, _):
        nonlocal count
        if event in ("call", "return", "c_return") and frame.f_code.co_filename.startswith(PACKAGES):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def killed_submit(workspace, run, moment, **options):
    process = FORK.Process(target=count_calls, args=(lambda: quietly(workspace, run, **options), moment))
    process.start()
    process.join(timeout=300)
    return process.exitcode


def raced_submits(workspace, runs, **options):
    """Four or so at once; their exit codes."""
    processes = [FORK.Process(target=quietly, args=(workspace, run), kwargs=options) for run in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


def moments(total, number, seed):
    """Seeded moments over the whole length of a submit, in the order in which they are tried."""
    return random.Random(seed).sample(range(1, total), number)


def read_board(workspace):
    path = workspace.local_host("tiny-task") / "leaderboard.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_agreement(workspace):
    """Board, runs, ledger and MLflow say the same; returns the refs of the board."""
    board = read_board(workspace)
    facts = {(line["run"], line["ref"], line["sha256"], line["public"]["rmse"]) for line in board}
    kept = [
        (path.parent.name, entry.ref, entry.sha256, entry.public["rmse"])
        for path in workspace.runs.glob("*/*/submissions.jsonl")
        for entry in read_submissions(Run.find(workspace.runs, path.parent.name).submissions_file)
    ]
    assert sorted(kept) == sorted(facts)
    records = Ledger(workspace.ledger).records()
    entered = [(entry.run, entry.number, entry.submission_sha256, entry.public["rmse"]) for entry in records]
    assert sorted(entered) == sorted(facts)
    assert len(list(workspace.ledger.glob("local/tiny_task/*"))) == len(facts), "one file each"
    tracked = in_a_process(read_mlflow, workspace)
    for run, told in tracked.items():
        of_run = [line for line in board if line["run"] == run]
        expected = [str(of_run[-1]["ref"]), of_run[-1]["public"]["rmse"]] if of_run else [None, None]
        assert told[:2] == expected
        assert told[2] == ([f"local:tiny_task:{of_run[-1]['ref']}"] if of_run else [None])[0]
    assert list((workspace.runs / ".unsettled").iterdir()) == []
    assert list(workspace.root.rglob("*.partial")) == []
    return [line["ref"] for line in board]


def read_mlflow(workspace):
    from mlflow.tracking import MlflowClient

    from pipelines.tracking.mlflow.database import tracking_uri

    client = MlflowClient(tracking_uri(workspace))
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny-task"]
    return {
        run.info.run_name: [
            run.data.tags.get("submission.ref"),
            run.data.metrics.get("lb/public"),
            run.data.tags.get("ledger.ref"),
        ]
        for run in client.search_runs([experiment.experiment_id])
    }
