"""What goes wrong on a dataset's way to Kaggle: uploads that break off, versions that fail or take their time."""

import pytest
from built_kernels import make_kernel
from kaggle_faults import DATASET, WEIGHTS, versions
from kaggle_standin import Cut, Refusal, Reply, Stop

from pipelines.addresses import KernelName
from pipelines.kaggle.client import KaggleClient

NAME = KernelName.parse(DATASET)
pytestmark = pytest.mark.usefixtures("no_key_anywhere")


@pytest.mark.parametrize(
    ("stop", "ranges"),
    [
        (Stop(70_000), ["", ""]),  # the client's HTTP layer sends the whole file again
        (Stop(70_000, status=503), ["", "bytes */102400", "bytes 70000-102399/102400"]),
        (Stop(0, status=503), ["", "bytes */102400", ""]),
    ],
)
def test_an_upload_that_breaks_off_is_taken_up_again(server, workspace, run_push, stop, ranges):
    make_kernel(workspace, datasets=WEIGHTS)
    server.faults["upload"].append(stop)
    assert run_push().datasets == {NAME: 1}
    assert [body["range"] for body in server.called("upload")] == ranges
    assert server.datasets.datasets[DATASET].versions[0].files == WEIGHTS[DATASET]
    assert not [path for path in (workspace.build / "datasets").iterdir() if path.name.startswith(".")]


def test_an_upload_that_is_refused(server, workspace, run_push, error_of):
    make_kernel(workspace, datasets=WEIGHTS)
    server.faults["upload"].append(Stop(0, status=400))
    assert error_of() == f"{DATASET}: 0 of 1 files arrived; push again"
    assert (server.datasets.datasets, versions(server)) == ({}, 0)
    assert run_push().version.version == 1


@pytest.mark.parametrize("method", ["CreateDataset", "CreateDatasetVersion"])
@pytest.mark.parametrize("fault", [Cut(is_done=True), Cut(), Refusal(503, "busy"), Refusal(429, "slow", retry_after=1)])
def test_a_dataset_version_is_made_once(server, workspace, run_push, method, fault):
    expected = 1
    if method == "CreateDatasetVersion":
        make_kernel(workspace, datasets={DATASET: {"model.bin": b"old"}})
        run_push()
        expected = 2
    make_kernel(workspace, datasets=WEIGHTS)
    server.faults[method].append(fault)
    assert run_push().datasets == {NAME: expected}
    assert len(server.datasets.datasets[DATASET].versions) == expected


def test_a_dataset_that_kaggle_does_not_take(server, workspace, error_of):
    make_kernel(workspace, datasets=WEIGHTS)
    server.faults["CreateDataset"].append(Reply({"status": "error", "error": "The title is already in use"}))
    assert error_of() == (
        f"{DATASET}: Kaggle did not take the dataset: The title is already in use; correct what it says and push again"
    )
    assert versions(server) == 0


def test_a_dataset_whose_processing_fails(server, workspace, error_of):
    make_kernel(workspace, datasets=WEIGHTS)
    server.datasets.failing.add(DATASET)
    assert error_of() == (
        f"{DATASET}: the processing of version 1 ended as FAILED; see what https://www.kaggle.com/datasets/{DATASET} "
        "says, delete that version there and push again"
    )
    assert versions(server) == 0


def test_a_dataset_that_does_not_get_ready(server, workspace, run_push, error_of, retries):
    """The version before it stays READY meanwhile; a kernel pushed now would mount that."""
    make_kernel(workspace, datasets={DATASET: {"model.bin": b"old"}})
    run_push()
    server.datasets.datasets[DATASET].versions[0].age = 100
    server.datasets.num_hidden_polls, server.datasets.num_processing_polls = 3, 3
    client = KaggleClient(retries)
    make_kernel(workspace, datasets=WEIGHTS)
    folder = workspace.build / "datasets" / "tiny-weights"
    assert client.datasets.upload(folder, "0" * 64, client.datasets.current(NAME)) == 2
    state = client.datasets.current(NAME)
    assert (state.version, state.status) == (1, "READY")
    wait = client.datasets.wait_until_ready
    assert error_of(lambda: wait(NAME, 2, patience_seconds=0)) == (
        f"{DATASET}: version 2 is not ready after 0 s (version 1 is READY); push again to go on waiting: nothing is "
        "uploaded twice"
    )
    wait(NAME, 2)
    assert client.datasets.current(NAME).version == 2
