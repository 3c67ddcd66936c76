"""Whole processes against the stand-in, through a proxy and with nothing patched: Kaggle's command line, then ours.

Kaggle's own client is what proves the stand-in right: whatever it accepts there, ours may be tested against.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from built_kernels import make_dataset, make_kernel
from kaggle_standin import KaggleStandIn, StandInCompetition, Stop, proxy_environment
from kaggle_standin.kernels import Session
from mlflow import MlflowClient
from tiny_competition import make_run, write_lines

from pipelines.submissions.ledger import Ledger
from pipelines.tracking.mlflow.tracker import open_mlflow_tracker
from pipelines.workspace import Workspace

pytestmark = pytest.mark.processes
WATSON = "contradictory-my-dear-watson"
KERNEL = "alice/tiny-kernel"
RUN = "20261121-100000-bbbb"
FILES = {
    "test.csv": b"id,premise,hypothesis\na,A man eats.,Someone eats.\nb,It rains.,It is dry.\n",
    "sample_submission.csv": b"id,prediction\na,0\nb,0\n",
}
HIDDEN = {"test.csv": b"id,premise,hypothesis\nx,One.,Two.\ny,Two.,One.\nz,.,.\n"}
# Says 1 for every row of whatever test set is mounted.
CELL = (
    "from pathlib import Path\n"
    "root = Path('/kaggle/input') if Path('/kaggle/input').is_dir() else Path('../input')\n"
    f"rows = (root / 'competitions/{WATSON}/test.csv').read_text().splitlines()[1:]\n"
    "print('predicting', len(rows), 'rows')\n"
    "lines = ['id,prediction', *(row.split(',')[0] + ',1' for row in rows)]\n"
    "Path('submission.csv').write_text('\\n'.join(lines) + '\\n')"
)


@pytest.fixture
def server(tmp_path):
    contest = StandInCompetition(FILES, answers=b"id,prediction,Usage\na,1,Public\nb,0,Public\n")
    with KaggleStandIn({WATSON: contest}, log=tmp_path / "requests.jsonl") as server:
        yield server


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "checkout")
    workspace.root.mkdir()
    return workspace


@pytest.fixture
def run(server, tmp_path, workspace):
    """Run a command in the checkout; no credential may show in what it says."""

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        environment = proxy_environment(server, tmp_path / "home")
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=workspace.root, capture_output=True, text=True, check=False
        )
        assert "secret-key" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def kaggle(run):
    return lambda *arguments: run(sys.executable, "-m", "kaggle", *arguments)


@pytest.fixture
def podium(run):
    # The stage is a child of the machine's python, as the console command is.
    return lambda *arguments: run(sys.executable, "-c", "from pipelines.cli import main; main()", *arguments)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("home/.kaggle/access_token", "KGAT_hidden"),
        ("home/.kaggle/access_token.txt", "KGAT_hidden"),
        ("home/.kaggle/kaggle.json", json.dumps({"username": "alice", "key": "secret-key"})),
        ("home/.config/kaggle/kaggle.json", json.dumps({"username": "alice", "key": "secret-key"})),
        ("elsewhere/kaggle.json", json.dumps({"username": "alice", "key": "secret-key"})),
        (
            "home/.kaggle/credentials.json",
            json.dumps(
                {
                    "refresh_token": "KGRT_hidden",
                    "access_token": "KGAT_hidden",
                    "access_token_expiration": "2999-01-01T00:00:00+00:00",
                    "username": "alice",
                }
            ),
        ),
    ],
)
def test_credentials_are_found_where_kaggles_client_finds_them(server, tmp_path, place, content):
    server.valid_tokens["KGAT_hidden"] = "alice"
    environment = proxy_environment(server, tmp_path / "home")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        del environment[name]
    write_lines(tmp_path / place, content)
    if place.startswith("elsewhere"):
        environment["KAGGLE_CONFIG_DIR"] = str(tmp_path / "elsewhere")
    code = (
        "from pipelines.kaggle.client import KaggleClient; client = KaggleClient(); "
        f"print(client.username, client.rules('{WATSON}').has_entered)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("alice True\n", "")


def test_kaggles_own_client_finds_all_it_needs(server, kaggle, workspace, tmp_path):
    dataset = {"alice/tiny-weights": {"model.bin": b"\x07" * 100_000}}
    folder = make_kernel(workspace, CELL, datasets=dataset, competition_sources=[WATSON])
    server.faults["upload"].append(Stop(30_000, status=503))
    created = kaggle("datasets", "create", "-p", workspace.build / "datasets" / "tiny-weights")
    assert "Your private Dataset is being created" in created.stdout
    assert server.datasets.datasets["alice/tiny-weights"].versions[0].files == dataset["alice/tiny-weights"]
    make_dataset(workspace, "alice/tiny-weights", {"model.bin": b"\x08"})
    kaggle("datasets", "version", "-p", workspace.build / "datasets" / "tiny-weights", "-m", "smaller")
    status = kaggle("datasets", "status", "alice/tiny-weights", "--format", "json")
    assert json.loads(status.stdout) == {"status": "ready", "current_version_number": 2}

    pushed = kaggle("kernels", "push", "-p", folder)
    assert pushed.stdout.startswith("Kernel version 1 successfully pushed."), pushed
    assert server.kernels.sessions[KERNEL][0].is_over.wait(60)
    assert "KernelWorkerStatus.COMPLETE" in kaggle("kernels", "status", KERNEL).stdout
    kaggle("kernels", "output", KERNEL, "-p", tmp_path / "output")
    assert (tmp_path / "output" / "submission.csv").read_bytes() == b"id,prediction\na,1\nb,1\n"
    assert "predicting 2 rows" in kaggle("kernels", "logs", KERNEL, "-f").stdout

    server.competitions[WATSON].is_code, server.competitions[WATSON].hidden = True, HIDDEN
    server.competitions[WATSON].answers = b"id,prediction,Usage\nx,1,Public\ny,1,Public\nz,0,Public\n"
    code = ("-k", KERNEL, "-v", "1", "-f", "submission.csv", "-m", "by hand")
    assert "Successfully submitted" in kaggle("competitions", "submit", WATSON, *code).stdout
    assert server.contests.graded[5000].wait(60)
    assert "0.66667" in kaggle("competitions", "submissions", WATSON).stdout
    assert "29.00h" in kaggle("quota").stdout
    methods = {json.loads(line)["method"] for line in (tmp_path / "requests.jsonl").read_text().splitlines()}
    assert methods >= {"SaveKernel", "CreateDataset", "CreateDatasetVersion", "CreateCodeSubmission"}


def test_what_kaggles_client_calls_a_success_is_a_failure_of_ours(server, kaggle, podium, workspace):
    """An error under status 200: Kaggle's command line ends with 0. Ours with 2, and with what to do."""
    folder = make_kernel(workspace)
    for number in range(5):
        name = f"alice/busy-{number}"
        server.kernels.sessions[name] = [Session(name, 1, {"kernelType": "notebook"}, Path())]
    theirs, ours = kaggle("kernels", "push", "-p", folder), podium("push", "tiny-kernel")
    assert theirs.returncode == 0
    assert "Kernel push error: Maximum batch CPU session count of 5 reached." in theirs.stdout
    assert (ours.returncode, ours.stdout) == (2, "")
    assert ours.stderr == (
        f"podium: {KERNEL}: Kaggle did not take it: Maximum batch CPU session count of 5 reached.; wait until a "
        "running kernel ends, or stop one under View Active Events at https://www.kaggle.com/code, then push again\n"
    )


def test_push_wait_pull_submit_score(server, podium, workspace, monkeypatch):
    """The command line alone, to the score on the MLflow run: a code competition, then one that takes files."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = make_run(workspace, RUN, competition="contradictory_my_dear_watson")
    tracker = open_mlflow_tracker(workspace, competition=WATSON, run_name="first", run_dir=run_dir, flush_seconds=60.0)
    tracker.finish("FINISHED")
    record = json.loads((run_dir / "run.json").read_text())
    record["tracking"] = {"backend": "mlflow", "run_id": tracker.run_id, "uri": tracker.uri}
    write_lines(run_dir / "run.json", json.dumps(record))
    write_lines(workspace.data_dir(WATSON) / "sample_submission.csv", *FILES["sample_submission.csv"].decode().split())
    make_kernel(workspace, CELL, competition_sources=[WATSON], manifest={"run": RUN, "kaggle_slug": WATSON})

    pushed = podium("push", "tiny-kernel", "--wait")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.count("predicting 2 rows\n") == 1

    contest = server.competitions[WATSON]
    contest.is_code, contest.hidden = True, HIDDEN
    contest.answers = b"id,prediction,Usage\nx,1,Public\ny,1,Public\nz,0,Public\n"
    submitted = podium("submit", "--kernel", "tiny-kernel")
    assert submitted.returncode == 0, submitted.stderr
    assert "ref 5000; lb/public accuracy 0.6667\n" in submitted.stdout
    run = MlflowClient(tracker.uri).get_run(tracker.run_id)
    assert run.data.metrics["lb/public"] == 0.66667
    assert run.data.tags["submission.kernel"] == run.data.tags["ledger.kernel"] == f"{KERNEL}/1"
    assert run.data.tags["submission.ref"] == "5000"

    contest.is_code, contest.answers = False, b"id,prediction,Usage\na,1,Public\nb,0,Public\n"
    assert "ref 5001; lb/public accuracy 0.5000\n" in podium("submit", "--kernel", "tiny-kernel").stdout
    assert MlflowClient(tracker.uri).get_run(tracker.run_id).data.metrics["lb/public"] == 0.5
    assert [record.ref for record in Ledger(workspace.ledger).records()] == ["kaggle:5000", "kaggle:5001"]
