"""The repository's own kernels, from a run to a leaderboard, by way of the stand-in, which runs what was pushed."""

import json
import shutil

import pytest
from kaggle_standin import KaggleStandIn, connect, sign_in
from mlflow import MlflowClient
from project import ROOT

from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.submissions.ledger import Ledger
from pipelines.workspace import Workspace

# The miniature's few texts fill no vocabulary of thousands, and four beams take four times as long.
SMALL = ["data.vocabulary=character", "model.num_beams=1", "training.num_threads=1"]


@pytest.fixture
def workspace(workspace, monkeypatch):
    """The miniature checkout with the kernels in it, and an account of the stand-in's."""
    monkeypatch.setenv("SMOKE", "1")
    sign_in(monkeypatch, workspace.root.parent / "home")
    shutil.copytree(ROOT / "kernels", workspace.kernels)
    with (workspace.kernels / "mt5-adafactor-train" / "kernel.yaml").open("a") as file:
        file.write(f"overrides: {json.dumps(SMALL)}\n")
    return workspace


@pytest.fixture
def server(workspace, monkeypatch):
    with KaggleStandIn() as server:
        # No machine here has the GPU that the training kernel asks for, nor its hours.
        server.kernels.environment["PODIUM_REHEARSAL"] = "1"
        server.kernels.environment["OMP_NUM_THREADS"] = "1"
        server.kernels.max_seconds = 3000.0
        connect(monkeypatch, server)
        yield server


def podium(workspace: Workspace, *arguments: object) -> None:
    main(["--root", str(workspace.root), *map(str, arguments)])


def tracked(record):
    tracking = record.record.tracking
    return MlflowClient(tracking.uri).get_run(tracking.run_id)


def test_a_run_is_predicted_on_kaggle_and_scored_here(workspace, server, capfd):
    """An embedded competition: data and weights go up, the answers stay; the kernel writes the run's very bytes."""
    podium(workspace, "train", "mt5_adafactor", *SMALL)
    podium(workspace, "kernel", "build", "mt5-adafactor")
    podium(workspace, "push", "mt5-adafactor", "--wait")
    podium(workspace, "submit", "--kernel", "mt5-adafactor")
    run = Run.newest_finished(workspace.runs, "mt5_adafactor", mode="smoke")
    output = workspace.build / "outputs" / "mt5-adafactor" / "v1"
    assert (output / "submission.csv").read_bytes() == run.submission_file.read_bytes()
    sent = {name for dataset in server.datasets.datasets.values() for v in dataset.versions for name in v.files}
    assert {"train.csv", "test.csv", "sample_submission.csv"} <= sent
    assert not [name for name in sent if "solution" in name]
    (record,) = Ledger(workspace.ledger).records()
    assert (record.ref, str(record.kernel.kernel)) == ("local:place_names:1", "alice/mt5-adafactor")
    assert record.kernel.entries()["dataset_versions"] == dict.fromkeys(server.datasets.datasets, 1)
    run = tracked(Run.find(workspace.runs, run.id))
    assert run.data.metrics["smoke/lb/public"] == record.public["exact_match"]
    assert run.data.tags["ledger.kernel"] == "alice/mt5-adafactor/1"
    assert "secret-key" not in "".join(capfd.readouterr())


def test_a_run_is_trained_on_kaggle_taken_in_and_scored_here(workspace, server):
    podium(workspace, "kernel", "build", "mt5-adafactor-train")
    podium(workspace, "push", "mt5-adafactor-train", "--wait")
    output = workspace.build / "outputs" / "mt5-adafactor-train" / "v1"
    podium(workspace, "runs", "import", output)
    (record,) = Run.list(workspace.runs)
    assert record.record.imported.entries() == {"kernel": "alice/mt5-adafactor-train", "version": 1}
    podium(workspace, "submit", "--kernel", "mt5-adafactor-train")
    run = tracked(record)
    history = MlflowClient(record.record.tracking.uri).get_metric_history(run.info.run_id, "train/loss/fold0")
    assert len(history) > 1, "its curves came with it"
    assert run.data.tags["kernel"] == "alice/mt5-adafactor-train"
    assert run.data.tags["submission.kernel"] == "alice/mt5-adafactor-train/1"
    public = Ledger(workspace.ledger).find("local:place_names:1").public["exact_match"]
    assert run.data.metrics["smoke/lb/public"] == public
    assert run.data.tags["mode"] == "smoke"
    assert not [key for key in run.data.metrics if key.startswith(("cv/", "oof/", "lb/"))]
