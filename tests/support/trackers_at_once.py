"""Trackers that real processes open at the same moment in a checkout without a database, and what is in it then."""

import json
import subprocess
import sys

from mlflow.tracking import MlflowClient

from pipelines.tracking.mlflow.database import tracking_uri

PROGRAM = """
import json, sys
from pathlib import Path
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace

workspace, name = Workspace(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
run_dir = workspace.runs / "first" / name
tracker = open_mlflow_tracker(workspace, competition="place-names", run_name=name, run_dir=run_dir)
tracker.log_params({"seed": name})
for step in range(40):
    tracker.log_metrics({"train/loss": 1 / (step + 1)}, step=step)
tracker.child("fold0").log_metrics({"valid/auc": 0.5})
tracker.finish("FINISHED")
print(json.dumps({"run_id": tracker.run_id, "unsent": tracker.num_unsent}), flush=True)
"""


def start_at_once(workspace, num_processes):
    """What each of so many trackers says that all open at the same moment."""
    command = [sys.executable, "-c", PROGRAM, str(workspace.root)]
    processes = [
        subprocess.Popen([*command, f"r{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(num_processes)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * num_processes
    return [json.loads(answer) for answer in answers]


def check_all_recorded(workspace, num_processes):
    answers = start_at_once(workspace, num_processes)
    assert [answer["unsent"] for answer in answers] == [0] * num_processes
    client = MlflowClient(tracking_uri(workspace))
    (experiment,) = [e for e in client.search_experiments() if e.name == "place-names"]
    runs = client.search_runs([experiment.experiment_id], "params.seed LIKE 'r%'")
    assert sorted(run.info.run_id for run in runs) == sorted(answer["run_id"] for answer in answers)
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"seed": run.info.run_name}
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in curve] == [(step, 1 / (step + 1)) for step in range(40)]
        (fold,) = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
        assert fold.data.metrics == {"valid/auc": 0.5}
    names = sorted(path.name for path in workspace.root.iterdir())
    assert names == ["mlflow.db"], "nothing of making it is left"
