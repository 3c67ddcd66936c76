"""What goes wrong while a pushed kernel runs on Kaggle and when its output is fetched."""

import json
import threading

import pytest
from built_kernels import make_kernel, make_notebook
from kaggle_faults import KERNEL, PAGE, versions
from kaggle_standin import Cut, Refusal, Script, Spoil

from pipelines.kaggle.kernels import KaggleKernels

pytestmark = pytest.mark.usefixtures("no_key_anywhere")


def test_a_version_is_unknown_in_its_first_seconds(server, workspace, run_push):
    make_kernel(workspace)
    server.kernels.num_unknown_polls, server.kernels.num_queued_polls = 2, 2
    assert run_push(wait=True).status == "COMPLETE"


def test_status_and_log_that_stumble_do_not_end_the_waiting(server, workspace, run_push):
    make_kernel(workspace)
    server.kernels.scripts[KERNEL] = Script(("one", "two"), gate=threading.Event(), files={"a": b"1"})
    server.faults["GetKernelSessionStatus"] += [Refusal(500, "oops"), Cut(), Refusal(429, "slow", retry_after=2)]
    server.faults["stream"] += [Refusal(500, "oops"), Refusal(404, "no stream")]
    threading.Timer(0.3, server.kernels.scripts[KERNEL].gate.set).start()
    assert run_push(wait=True).status == "COMPLETE"
    assert (workspace.build / "outputs" / "tiny-kernel" / "v1.log").read_text() == "one\ntwo\n"


def test_a_kernel_that_fails_says_its_last_words(server, workspace, error_of, run_push):
    del server.kernels.scripts[KERNEL]
    make_kernel(workspace, "print('so far so good')", "import nothing_of_this_name")
    assert error_of(wait=True) == (
        f"{KERNEL}: version 1 failed: ModuleNotFoundError: No module named 'nothing_of_this_name'; the image lacks a "
        "package: list it under wheels in kernel.yaml, and build and rehearse again"
    )
    assert error_of(wait=True) == (
        f"{KERNEL}: version 1 ended as ERROR (Kaggle says no more); change it, or push the same again: "
        "make push K=tiny-kernel AGAIN=1"
    )
    assert versions(server) == 1
    assert run_push(again=True).version.version == 2


def test_the_last_words_are_those_of_the_error(server, workspace, error_of):
    make_kernel(workspace)
    lines = ("\x1b[0;31mValueError\x1b[0m: no rows", "[NbConvertApp] Converting notebook", "  warn(")
    server.kernels.scripts[KERNEL] = Script(lines, status="ERROR")
    assert error_of(wait=True).startswith(f"{KERNEL}: version 1 failed: ValueError: no rows; rehearse it here")


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (
            "ERROR",
            "Your notebook tried to allocate more memory than is available. It has restarted.",
            "failed: Your notebook tried to allocate more memory than is available. It has restarted.; done; lower the",
        ),
        ("ERROR", "", "failed: done; rehearse it here (make rehearse K=tiny-kernel), correct it and push again"),
        (
            "CANCEL_ACKNOWLEDGED",
            "",
            "was cancelled (by hand, by a newer push, or at the time limit); push it again: make push K=tiny-kernel",
        ),
    ],
)
def test_how_a_kernel_can_end(server, workspace, error_of, status, message, said):
    make_kernel(workspace)
    server.kernels.scripts[KERNEL] = Script(("done",), status=status, message=message)
    assert error_of(wait=True).startswith(f"{KERNEL}: version 1 {said}")
    assert not (workspace.build / "outputs").exists(), "no output of a failure is taken for one"


def test_a_kernel_that_takes_too_long(server, workspace, error_of):
    del server.kernels.scripts[KERNEL]
    make_kernel(workspace, "import time; time.sleep(60)", manifest={"timeout_seconds": 1})
    assert error_of(wait=True).startswith(
        f"{KERNEL}: version 1 failed: Your notebook was stopped because it exceeded its time limit."
    )
    assert server.called("SaveKernel")[0]["sessionTimeoutSeconds"] == 1


def test_a_notebook_without_a_kernelspec(server, workspace, unchecked, error_of):
    del server.kernels.scripts[KERNEL]
    folder = make_kernel(workspace)
    notebook = json.loads(make_notebook("print(1)"))
    del notebook["metadata"]["kernelspec"]
    (folder / "tiny-kernel.ipynb").write_text(json.dumps(notebook))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    del manifest["files"]["tiny-kernel.ipynb"]
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    assert error_of(wait=True).endswith("; build the kernel again: its notebook must name a kernelspec")


def test_patience_ends_and_is_taken_up_again(server, workspace, run_push, error_of):
    gate = threading.Event()
    make_kernel(workspace)
    server.kernels.num_queued_polls = 1
    server.kernels.scripts[KERNEL] = Script(gate=gate)
    assert error_of(wait=True, patience_seconds=0) == (
        f"{KERNEL}: version 1 is QUEUED after 0 s of waiting; see {PAGE}, or push it once more to go on waiting: "
        "nothing is pushed twice"
    )
    gate.set()
    assert run_push(wait=True).status == "COMPLETE"
    assert versions(server) == 1


def test_ctrl_c_stops_the_waiting_and_not_the_kernel(server, workspace, run_push, error_of, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    make_kernel(workspace)
    monkeypatch.setattr(KaggleKernels, "status", interrupt)
    assert error_of(wait=True) == (
        f"{KERNEL}: version 1 runs on without being watched; go on waiting with: make push K=tiny-kernel"
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [("short", "broke off after 0 bytes"), ("altered", "arrived with another MD5 than Kaggle names")],
)
def test_an_output_that_arrives_damaged_is_fetched_again(server, workspace, run_push, error_of, how, said):
    make_kernel(workspace)
    server.faults["download"] += [Spoil(how)] * 2
    run_push(wait=True)
    folder = workspace.build / "outputs" / "tiny-kernel"
    assert (folder / "v1" / "submission.csv").read_bytes() == b"id,label\n1,0\n"
    make_kernel(workspace, "print(2)")
    server.faults["download"] += [Spoil(how)] * 6
    assert error_of(wait=True) == (f"{KERNEL}: submission.csv: {said}, and so each time; try again later")
    assert not (folder / "v2").exists()
