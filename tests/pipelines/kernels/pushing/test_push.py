"""A built kernel onto the stand-in of Kaggle, which really runs it: datasets first, once, its log, its output."""

import io
import json
import threading

import pytest
from built_kernels import make_kernel, sha256
from kaggle_standin import KaggleStandIn, Refusal, Script, StandInCompetition, connect, sign_in
from rich.console import Console
from tiny_competition import write_lines

from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.retries import Retries
from pipelines.kernels.pushes import PushLog
from pipelines.kernels.pushing.push import pull, push, status
from pipelines.workspace import Workspace

QUICK = Retries(first_pause=0.01, max_pause=0.05)
KERNEL = "alice/tiny-kernel"
WEIGHTS = KernelName("alice", "tiny-weights")


@pytest.fixture
def server(tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home")
    log = tmp_path / "requests.jsonl"
    with KaggleStandIn({"tiny-task": StandInCompetition({"test.csv": b"id\n1\n2\n"})}, log=log) as server:
        connect(monkeypatch, server)
        yield server


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=200)


def text_of(screen: Console) -> str:
    return screen.file.getvalue()


def run_push(workspace: Workspace, screen: Console | None = None, **options):
    return push(workspace, "tiny-kernel", retries=QUICK, console=screen or Console(file=io.StringIO()), **options)


def error_of(workspace: Workspace, **options) -> str:
    with pytest.raises(PodiumError) as error:
        run_push(workspace, **options)
    assert "\n" not in str(error.value)
    assert "secret-key" not in str(error.value)
    return str(error.value)


def test_datasets_first_then_the_kernel_then_its_output(server, workspace, screen):
    """The kernel reads the competition and the weights where Kaggle mounts them, and its words and files come back."""
    make_kernel(
        workspace,
        "from pathlib import Path\n"
        "root = Path('/kaggle/input') if Path('/kaggle/input').is_dir() else Path('../input')\n"
        "weights = (root / 'datasets/alice/tiny-weights/model.bin').read_bytes()\n"
        "rows = (root / 'competitions/tiny-task/test.csv').read_text().split()[1:]",
        "print('predicting', len(rows), 'rows')\n"
        "Path('submission.csv').write_text('id,label\\n' + ''.join(f'{row},{weights[0]}\\n' for row in rows))",
        datasets={"alice/tiny-weights": {"model.bin": b"\x07" * 1000}},
        competition_sources=["tiny-task"],
    )
    server.datasets.num_hidden_polls, server.datasets.num_processing_polls = 1, 1
    server.kernels.num_queued_polls = 2
    done = run_push(workspace, screen, wait=True)
    assert (done.version.version, done.status, done.datasets) == (1, "COMPLETE", {WEIGHTS: 1})
    output = workspace.build / "outputs" / "tiny-kernel"
    assert (output / "v1" / "submission.csv").read_bytes() == b"id,label\n1,7\n2,7\n"
    assert sorted(path.name for path in output.iterdir()) == ["v1", "v1.json", "v1.log"]
    assert json.loads((output / "v1.json").read_text())["files"]["submission.csv"] == {
        "sha256": sha256(b"id,label\n1,7\n2,7\n"),
        "num_bytes": 17,
    }
    assert (output / "v1.log").read_text().count("predicting 2 rows") == 1
    words = text_of(screen)
    assert words.count("predicting 2 rows") == 1
    assert "alice/tiny-weights: version 1 uploaded\n" in words
    assert f"{KERNEL}: version 1 pushed; https://www.kaggle.com/code/{KERNEL}\n" in words
    methods = [name for name, _ in server.requests]
    ready = max(n for n, name in enumerate(methods) if name == "GetDatasetStatus")
    assert methods.index("CreateDataset") < ready < methods.index("SaveKernel")
    (dataset,) = server.called("CreateDataset")
    assert (dataset["ownerSlug"], dataset["slug"], dataset["isPrivate"]) == ("alice", "tiny-weights", True)
    assert dataset["licenseName"] == "CC0-1.0"


def test_every_request_is_logged_and_no_credential_with_it(server, workspace, tmp_path):
    make_kernel(workspace)
    run_push(workspace)
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [line["method"] for line in lines] == ["GetKernel", "SaveKernel"]
    assert {line["user"] for line in lines} == {"alice"}
    assert "secret-key" not in (tmp_path / "requests.jsonl").read_text()
    (body,) = server.called("SaveKernel")
    assert (body["slug"], body["newTitle"], body["kernelType"]) == (KERNEL, "tiny kernel", "notebook")
    assert (body["isPrivate"], body["enableInternet"]) == (True, False)


def test_the_same_content_is_pushed_once(server, workspace, screen):
    make_kernel(workspace, datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    run_push(workspace, wait=True)
    again = run_push(workspace, screen, wait=True)
    assert again.version.version == 1
    assert f"{KERNEL}: version 1 is this very content; it is not pushed twice\n" in text_of(screen)
    assert len(server.called("SaveKernel")) == len(server.called("CreateDataset")) == 1
    run_push(workspace, again=True)
    assert len(server.called("SaveKernel")) == 2
    assert len(server.called("StartBlobUpload")) == 1, "the dataset is the same and stays"
    make_kernel(workspace, "print('other words')", datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    assert run_push(workspace).version.version == 3
    # The same code and sources, and still another kernel.
    make_kernel(
        workspace, "print('other words')", datasets={"alice/tiny-weights": {"model.bin": b"1"}}, is_private=False
    )
    assert run_push(workspace).version.version == 4


def test_another_checkout_finds_the_version_on_kaggle(server, workspace, tmp_path):
    """Nothing but Kaggle knows of the push: the code and the digests of the datasets are compared."""
    datasets = {"alice/tiny-weights": {"model.bin": b"1", "a.txt": b"2"}}
    make_kernel(workspace, datasets=datasets)
    run_push(workspace, wait=True)
    other = Workspace(tmp_path / "other")
    make_kernel(other, datasets=datasets)
    done = run_push(other, wait=True)
    assert (done.version.version, done.datasets, done.status) == (1, {WEIGHTS: 1}, "COMPLETE")
    assert len(server.called("SaveKernel")) == 1


def test_a_dataset_that_changed_is_a_new_version_and_the_kernel_mounts_it(server, workspace):
    cell = "print('weights', __import__('glob').glob('/kaggle/input/datasets/alice/tiny-weights/*'))"
    make_kernel(workspace, cell, datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    run_push(workspace)
    server.datasets.datasets["alice/tiny-weights"].versions[0].age = 100
    server.datasets.num_hidden_polls = server.datasets.num_processing_polls = 2
    make_kernel(workspace, cell, datasets={"alice/tiny-weights": {"model.bin": b"2"}})
    done = run_push(workspace)
    assert (done.version.version, done.datasets) == (2, {WEIGHTS: 2})
    assert [v.files for v in server.datasets.datasets["alice/tiny-weights"].versions] == [
        {"model.bin": b"1"},
        {"model.bin": b"2"},
    ]
    for versions in server.kernels.sessions.values():
        for session in versions:
            session.is_over.wait(30)


def test_the_log_comes_while_the_kernel_runs(server, workspace):
    """The screen has the first lines before the kernel may end; the stream broke off once and began anew."""
    make_kernel(workspace)
    gate = threading.Event()
    server.kernels.scripts[KERNEL] = Script(("one", "two", "three"), gate=gate, files={"submission.csv": b"id\n"})
    server.faults["log"] += [None, True]

    class Screen(io.StringIO):
        def write(self, text):
            super().write(text)
            if "three" in self.getvalue():
                gate.set()
            return len(text)

    screen = Screen()
    assert run_push(workspace, Console(file=screen, width=200), wait=True).status == "COMPLETE"
    assert screen.getvalue().count("one\ntwo\nthree\n") == 1


def test_status_and_pull_of_one_version(server, workspace, screen):
    make_kernel(workspace, "open('a.txt', 'w').write('first')")
    run_push(workspace, wait=True)
    make_kernel(workspace, "open('a.txt', 'w').write('second')")
    run_push(workspace, wait=True)
    state = status(workspace, "tiny-kernel", version=1, retries=QUICK, console=screen)
    assert (state.status, text_of(screen)) == ("COMPLETE", f"{KERNEL}: version 1 is COMPLETE\n")
    assert server.called("GetKernelSessionStatus")[-1]["versionLabel"] == "v1"
    first = pull(workspace, "tiny-kernel", version=1, retries=QUICK, console=screen)
    assert (first.folder / "a.txt").read_text() == "first"
    (first.folder / "a.txt").write_text("spoiled")
    assert (pull(workspace, "tiny-kernel", version=1, retries=QUICK).folder / "a.txt").read_text() == "first"
    newest = pull(workspace, "tiny-kernel", retries=QUICK, console=screen)
    assert (newest.version.version, newest.files) == (2, {"a.txt": sha256(b"second")})


def test_what_a_kill_left_of_a_pull_is_swept_by_the_next(server, workspace):
    make_kernel(workspace)
    outputs = workspace.build / "outputs" / "tiny-kernel"
    for leftover in (".v1.partial", f"v1.{'0' * 16}.partial"):
        write_lines(outputs / leftover / "submission.csv", "half")
    run_push(workspace, wait=True)
    assert sorted(path.name for path in outputs.iterdir()) == ["v1", "v1.json", "v1.log"]
    assert (outputs / "v1" / "submission.csv").read_bytes() == b"id,label\n1,0\n"


def test_what_was_not_built_or_was_changed_is_not_pushed(server, workspace):
    assert error_of(workspace).endswith("is not there); build it with: make kernel K=tiny-kernel")
    folder = make_kernel(workspace, datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    with pytest.raises(PodiumError, match="did you mean tiny-kernel"):
        push(workspace, "tiny-kernle", retries=QUICK)
    notebook = folder / "tiny-kernel.ipynb"
    notebook.write_text(notebook.read_text() + "\n")
    assert error_of(workspace) == f"{notebook}: was changed after the kernel was built; build it again"
    make_kernel(workspace, datasets={"alice/tiny-weights": {"model.bin": b"1"}})
    stray = workspace.build / "datasets" / "tiny-weights" / "notes.txt"
    stray.write_text("mine")
    assert error_of(workspace) == f"{stray}: is not of this dataset, but would be uploaded; take it away"
    assert server.requests == []


def test_quota_and_what_a_competition_says(server):
    client = KaggleClient(QUICK)
    quota = client.quota()
    assert {name: (q.used.total_seconds(), q.left.total_seconds() / 3600) for name, q in quota.items()} == {
        "GPU": (3600.0, 29.0),
        "TPU": (0.0, 20.0),
    }
    assert quota["GPU"].renewed.isoformat()[:10] == "2026-11-28"
    rules = client.rules("tiny-task")
    assert (rules.is_code_competition, rules.max_daily_submissions, rules.has_entered) == (False, 5, True)
    server.faults["GetAcceleratorQuotaStatistics"].append(Refusal(503, "busy"))
    assert client.quota()["GPU"].allowed.total_seconds() == 30 * 3600


def test_a_push_that_was_cut_off_by_a_crash_is_found_again(server, workspace):
    make_kernel(workspace)
    run_push(workspace)
    log = PushLog(workspace, "tiny-kernel")
    log.path.write_text(log.path.read_text()[:-20])
    assert log.pushes() == []
    assert run_push(workspace).version.version == 1
    assert len(server.called("SaveKernel")) == 1
