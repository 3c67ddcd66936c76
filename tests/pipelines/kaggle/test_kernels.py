"""What goes wrong when a version is saved on Kaggle: no silent success, nothing sent twice, a cure in each message."""

import io
import threading
from dataclasses import replace

import pytest
from built_kernels import make_kernel, make_notebook
from kaggle_faults import KERNEL, KEY, PAGE, WEIGHTS, versions
from kaggle_standin import Cut, Extra, Refusal, Reply, Script, StandInCompetition
from rich.console import Console

from pipelines.kaggle import session as kaggle_session
from pipelines.kernels.pushing.push import push
from pipelines.workspace import Workspace

pytestmark = pytest.mark.usefixtures("no_key_anywhere")


def test_429_waits_as_long_as_it_says(server, workspace, run_push, naps):
    make_kernel(workspace)
    server.faults["SaveKernel"] += [Refusal(429, "slow down", retry_after=7), Refusal(429, "slow down")]
    assert run_push().version.version == 1
    assert (naps, versions(server)) == ([7.0, 2.0], 1)


def test_429_that_asks_for_an_hour_is_said_at_once(server, workspace, error_of, naps):
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Refusal(429, "slow down", retry_after=3600))
    assert error_of() == (
        f"{KERNEL}: too many requests (429), Kaggle asks for 3600 s of pause; wait a few minutes and try again"
    )
    assert (naps, versions(server)) == ([], 0)


@pytest.mark.parametrize("fault", [Refusal(500, "oops"), Refusal(502, "bad gateway"), Cut()])
def test_what_did_not_arrive_is_sent_again(server, workspace, run_push, naps, fault):
    """Kaggle is asked three times whether the version is there before it is sent once more."""
    make_kernel(workspace)
    server.faults["SaveKernel"].append(fault)
    assert run_push().version.version == 1
    assert versions(server) == 1
    assert [name for name, _ in server.requests] == ["GetKernel", "SaveKernel", *["GetKernel"] * 3, "SaveKernel"]
    assert naps == [1.0, 2.0, 4.0, 1.0]


@pytest.mark.parametrize("num_before", [0, 1])
def test_a_version_whose_answer_was_lost_is_not_saved_again(server, workspace, run_push, num_before):
    for number in range(num_before):
        make_kernel(workspace, f"print({number})")
        run_push()
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Cut(is_done=True))
    assert run_push(wait=True).version.version == num_before + 1
    assert versions(server) == len(server.called("SaveKernel")) == num_before + 1


def test_an_answer_that_never_comes_ends_the_call_and_not_the_push(server, workspace, run_push, monkeypatch):
    monkeypatch.setattr(kaggle_session, "TIMEOUT", (1.0, 0.3))
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Cut(is_done=True, seconds=0.6))
    assert run_push().version.version == 1
    assert versions(server) == 1


def test_somebody_elses_version_is_not_taken_for_ours(server, workspace, error_of):
    make_kernel(workspace)
    save = server.kernels.SaveKernel

    def save_another_one(call):
        save(replace(call, body=call.body | {"text": make_notebook("print('somebody else was faster')")}))
        return Cut()

    server.kernels.SaveKernel = save_another_one
    assert error_of() == (
        f"{KERNEL}: version 1 was saved meanwhile and holds other code; somebody else pushes this kernel too: "
        f"look at {PAGE} and push again"
    )
    assert versions(server) == 1


def test_500_that_stays(server, workspace, error_of):
    make_kernel(workspace)
    server.faults["SaveKernel"] += [Refusal(500, "oops")] * 6
    assert error_of() == f"{KERNEL}: Kaggle answered 500: oops; try again later"
    assert versions(server) == 0


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("Maximum batch GPU session count of 2 reached.", "wait until a running kernel ends, or stop one under"),
        ("Notebook not found", "look at the kernel's page: a deleted kernel keeps its slug"),
        ("You have exceeded your weekly GPU quota", "wait until the weekly hours are renewed"),
        ("Something new", "correct what it says and push again; no version was saved"),
    ],
)
@pytest.mark.parametrize("as_status", [200, 400])
def test_an_error_in_whatever_dress_is_a_failure(server, workspace, error_of, said, cure, as_status):
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Reply({"error": said}) if as_status == 200 else Refusal(400, said))
    message = error_of()
    verb = "did not take it" if as_status == 200 else "answered 400"
    assert message.startswith(f"{KERNEL}: Kaggle {verb}: {said}; ")
    assert cure in message or (as_status == 400 and message.endswith("correct what it says"))
    assert versions(server) == 0


def test_an_error_code_under_status_200_is_a_failure(server, workspace, error_of):
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Refusal(409, "a conflict", http_status=200))
    assert error_of() == f"{KERNEL}: Kaggle answered 409: a conflict; correct what it says"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "alice/nowhere-data"),
        ("competition", "no-such-task"),
        ("kernel", "bob/other"),
        ("model", "alice/mt5/pyTorch/base/3"),
    ],
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_version_without_one_of_its_sources_is_a_failure(
    server, workspace, unchecked, run_push, error_of, kind, name, is_lost
):
    """Kaggle saves it and answers 200; the client prints a line, for models not even that."""
    make_kernel(workspace, **{f"{kind}_sources": [name]})
    server.faults["SaveKernel"] += [Cut(is_done=True)] if is_lost else []
    assert error_of(wait=True) == (
        f"{KERNEL}: version 1 was saved but runs without a source that Kaggle does not find or does not let you use: "
        f"{kind} {name}; compare the name with its page, accept a competition's rules, and push again"
    )
    server.datasets.add("alice/nowhere-data", {"a": b"1"})
    server.competitions["no-such-task"] = StandInCompetition({"a": b"1"})
    server.kernels.sessions["bob/other"] = server.kernels.sessions[KERNEL]
    server.kernels.models["alice/mt5/pyTorch/base/3"] = {"config.json": b"{}"}
    assert run_push().version.version == 2, "the same content may be pushed again, for it never ran whole"


def test_a_missing_version_number_is_looked_up_or_a_failure(server, workspace, run_push, error_of):
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Extra({"versionNumber": None}))
    assert run_push().version.version == 1
    make_kernel(workspace, "print(2)")
    server.faults["SaveKernel"].append(Reply({"url": PAGE}))
    assert error_of() == f"{KERNEL}: Kaggle names no version it saved; look at {PAGE} and push again"
    assert versions(server) == 1


def test_a_version_that_kaggle_does_not_number_is_not_saved_twice(server, workspace, run_push, error_of):
    make_kernel(workspace)
    unnumbered = Extra({"metadata": {"ref": KERNEL}})
    server.faults["SaveKernel"].append(Cut(is_done=True))
    server.faults["GetKernel"] += [None, unnumbered]
    assert error_of() == f"{KERNEL}: was saved, but Kaggle does not say as which version; look at {PAGE}"
    assert run_push().version.version == 1
    server.faults["GetKernel"].append(unnumbered)
    assert run_push().version.version == versions(server) == len(server.called("SaveKernel")) == 1


def test_a_kernel_that_was_deleted_is_pushed_anew(server, workspace, run_push):
    make_kernel(workspace)
    run_push()
    run_push(again=True)
    del server.kernels.sessions[KERNEL][1]
    assert run_push().version.version == 2


def test_the_session_limit(server, workspace, run_push, error_of, tmp_path):
    """Two run that another checkout pushed, of which this one knows nothing."""
    gate, elsewhere = threading.Event(), Workspace(tmp_path / "elsewhere")
    for slug in ("busy-one", "busy-two"):
        make_kernel(elsewhere, slug=slug, enable_gpu=True, machine_shape="NvidiaTeslaT4")
        server.kernels.scripts[f"alice/{slug}"] = Script(gate=gate)
        push(elsewhere, slug, console=Console(file=io.StringIO()))
    make_kernel(workspace, enable_gpu=True, machine_shape="NvidiaTeslaT4")
    assert error_of() == (
        f"{KERNEL}: Kaggle did not take it: Maximum batch GPU session count of 2 reached.; wait until a running kernel "
        "ends, or stop one under View Active Events at https://www.kaggle.com/code, then push again"
    )
    make_kernel(workspace)
    assert run_push().version.version == 1, "of CPU sessions there are five"
    gate.set()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cells": ("#" * 1_000_001,)}, "The kernel source must be less than 1 megabytes in size; let the source"),
        ({"enable_internet": True}, "Internet must be disabled for the competition tiny-task; write internet: false"),
    ],
)
def test_what_kaggle_refuses_at_the_door(server, workspace, unchecked, error_of, changes, said):
    server.competitions["tiny-task"].is_offline = True
    cells = changes.pop("cells", ())
    make_kernel(workspace, *cells, competition_sources=["tiny-task"], **changes)
    assert error_of().startswith(f"{KERNEL}: Kaggle answered 400: {said}")
    assert versions(server) == 0


# -- credentials and owners ------------------------------------------------------------------------------------------


def test_an_expired_key(server, workspace, error_of):
    make_kernel(workspace)
    server.keys["alice"] = "another"
    message = error_of()
    assert message.startswith(f"{KERNEL}: Kaggle does not accept your credentials (401); make a token at ")
    assert [name for name, _ in server.requests] == []


def test_an_expired_token(server, workspace, error_of, monkeypatch):
    make_kernel(workspace)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_TOKEN", KEY)
    assert error_of().startswith("kaggle: the token in KAGGLE_API_TOKEN is not valid (expired or revoked?); ")


def test_a_wrong_owner_is_seen_before_anything_is_sent(server, workspace, error_of):
    make_kernel(workspace, owner="bob", datasets=WEIGHTS)
    assert error_of() == (
        "bob/tiny-kernel: is bob's, but the credentials are alice's; build it as alice/tiny-kernel, or sign in as bob"
    )
    assert server.requests == []


def test_a_dataset_of_somebody_else(server, workspace, error_of):
    make_kernel(workspace, datasets={"bob/tiny-weights": {"model.bin": b"1"}})
    assert error_of() == (
        "bob/tiny-weights: Kaggle refuses (403: Permission 'datasets.create' was denied); compare owner and slug with "
        "its page, https://www.kaggle.com/datasets/bob/tiny-weights, and with whose token you use"
    )
    assert versions(server) == 0
