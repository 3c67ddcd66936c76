"""The preflight's other half: each rule that asks Kaggle, with its cure, and a push that nothing leaves before it."""

import contextlib
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from built_kernels import make_kernel, write_kernel_file
from kaggle_faults import KERNEL, WEIGHTS, versions
from kaggle_standin import Refusal, Reply, Script, StandInCompetition
from kaggle_standin.protocol import Call
from rich.console import Console

from pipelines.errors import PodiumError
from pipelines.kernels.checking import account_rules as kaggle_account
from pipelines.kernels.checking.account_rules import ACCOUNT_RULES
from pipelines.kernels.checking.check import check
from pipelines.kernels.checking.rules import FindingState
from pipelines.kernels.pushes import PushLog
from pipelines.kernels.pushing.push import push

pytestmark = pytest.mark.usefixtures("no_key_anywhere")
OK, BAD = FindingState.OK, FindingState.WRONG
GPU = {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4"}
MODEL = "google/mt5/pyTorch/base/2"


@pytest.fixture
def account(server, workspace, retries):
    """What the rules that ask Kaggle say of the built kernel: rule -> state and words."""

    def ask(state: str) -> list[str]:
        screen = Console(file=io.StringIO(), soft_wrap=True)
        with contextlib.suppress(PodiumError):
            check(workspace, "tiny-kernel", retries=retries, console=screen)
        lines = [line.strip() for line in screen.file.getvalue().splitlines()]
        asked = lines[next(number for number, line in enumerate(lines) if line.startswith("account")) :]
        rows = [line.split(f" {state} ", 1) for line in asked if f" {state} " in line]
        return [f"{rule.strip()}: {words.strip()}" for rule, words in rows]

    return ask


def test_a_sound_kernel_passes_what_kaggle_is_asked(server, workspace, account):
    make_kernel(workspace, competition_sources=["tiny-task"], model_sources=[MODEL], kernel_sources=[KERNEL], **GPU)
    server.kernels.models[MODEL] = {"config.json": b"{}"}
    server.competitions["tiny-task"].num_today = 2
    push_it(workspace, retries=None, kernel_sources=[])
    make_kernel(workspace, competition_sources=["tiny-task"], model_sources=[MODEL], kernel_sources=[KERNEL], **GPU)
    assert account(OK) == [
        "account: alice",
        f"slug: {KERNEL} has 1 versions; a push makes the next",
        f"source: kernel {KERNEL}",
        f"source: model {MODEL}",
        "submissions: tiny-task: 3 left today",
        "hours: 29.0 h of gpu left",
        "sessions: 0 of 2 on gpu run that were pushed from here",
    ]
    assert account(BAD) == []


def push_it(workspace, retries, slug="tiny-kernel", **metadata):
    make_kernel(workspace, slug=slug, **(GPU | metadata))
    return push(workspace, slug, retries=retries, console=Console(file=io.StringIO()))


def test_somebody_elses_credentials(server, workspace, account):
    make_kernel(workspace, owner="bob")
    assert account(BAD) == ["account: credentials of alice, kernel of bob; build it as alice's, or use bob's"]


def test_a_slug_that_is_a_scripts(server, workspace, account, error_of):
    server.kernels.scripts[KERNEL] = Script()
    save_script(server)
    make_kernel(workspace)
    said = f"slug: {KERNEL} is a script on Kaggle and stays one; choose another slug"
    assert account(BAD) == [said]
    assert error_of() == f"tiny-kernel: not pushed: {said}"
    assert versions(server) == 1


def save_script(server):
    body = {"slug": KERNEL, "text": "print(1)", "language": "python", "kernelType": "script"}
    server.kernels.SaveKernel(Call("SaveKernel", body, "alice", server.url))


@pytest.mark.parametrize(
    ("kind", "name", "cure"),
    [
        ("dataset", "bob/nowhere-data", "correct dataset_sources"),
        ("dataset", "bob/nowhere-data/3", "correct dataset_sources"),
        ("kernel", "bob/other", "push it first"),
        ("kernel", KERNEL, "push it first, or build without --resume"),
        ("model", "google/mt5/pyTorch/large/1", "correct model_sources"),
        ("model", "google/mt5/Fortran/base/1", "correct model_sources"),
        ("model", "google/mt5/pyTorch/base/3", "its newest version is 2"),
    ],
)
def test_a_source_that_is_not_there(server, workspace, account, error_of, kind, name, cure):
    server.kernels.models[MODEL] = {"config.json": b"{}"}
    make_kernel(workspace, **{f"{kind}_sources": [name]}, datasets=WEIGHTS if kind == "kernel" else None)
    said = f"source: {kind} {name}: not there, or not to be seen by you; {cure}"
    assert account(BAD) == [said]
    assert error_of() == f"tiny-kernel: not pushed: {said}"
    assert (versions(server), server.datasets.datasets) == (0, {}), "nothing was sent, the weights neither"


def test_a_source_that_is_no_address_is_not_asked_for(server, workspace, account, error_of):
    make_kernel(workspace, dataset_sources=["weights"], model_sources=["google/mt5/pyTorch/base"])
    assert account(BAD) == []
    assert error_of() == (
        "tiny-kernel: not pushed: models: google/mt5/pyTorch/base: needs owner/model/framework/variation/version, the "
        "version a number; 1 more: podium kernel check tiny-kernel"
    )


def test_sources_that_are_there(server, workspace, account):
    server.datasets.add("bob/more-data", {"a": b"1"})
    server.kernels.models[MODEL] = {"config.json": b"{}"}
    sources = ["bob/more-data", "bob/more-data/1"]
    make_kernel(workspace, dataset_sources=sources, model_sources=["google/mt5/PyTorch/base/1"])
    assert account(OK)[2:5] == [f"source: dataset {source}" for source in sources] + [
        "source: model google/mt5/PyTorch/base/1"
    ]


def test_a_competition_that_was_not_joined_or_is_none(server, workspace, account, error_of):
    server.competitions["tiny-task"].rules_accepted = False
    make_kernel(workspace, competition_sources=["tiny-task"])
    (said,) = account(BAD)
    assert said == (
        "rules: tiny-task: not joined; accept its rules at https://www.kaggle.com/competitions/tiny-task/rules"
    )
    assert error_of() == f"tiny-kernel: not pushed: {said}"
    make_kernel(workspace, competition_sources=["no-such-task"])
    (said,) = account(BAD)
    assert said.startswith("rules: no-such-task: Kaggle knows no such competition (404); ")


def test_no_submission_left_fails_the_check_and_not_the_push(server, workspace, account, run_push):
    contest = server.competitions["tiny-task"]
    contest.num_today = contest.num_total = 5
    make_kernel(workspace, competition_sources=["tiny-task"])
    assert account(BAD) == ["submissions: tiny-task: none left today (5 used); wait until 00:00 UTC"]
    assert run_push().version.version == 1


def test_hours_that_do_not_suffice(server, workspace, account, error_of):
    make_kernel(workspace, **GPU)
    used = {
        "quotaRefreshTime": "2026-11-28T00:00:00Z",
        "gpuQuota": {"timeUsed": "90000s", "totalTimeAllowed": "108000s"},
    }
    server.faults["GetAcceleratorQuotaStatistics"] += [Reply(used)] * 2
    said = (
        "hours: 5.0 h of gpu left, the kernel may take 9; renewed 2026-11-28 00:00 UTC: lower time_limit_hours, or wait"
    )
    assert account(BAD) == [said]
    assert error_of() == f"tiny-kernel: not pushed: {said}"
    write_kernel_file(workspace, "tiny-kernel", accelerator="NvidiaTeslaT4", time_limit_hours=5)
    server.faults["GetAcceleratorQuotaStatistics"].append(Reply(used))
    assert "hours: 5.0 h of gpu left" in account(OK)


def test_a_cpu_has_no_hours_and_they_are_not_asked_for(server, workspace, account):
    make_kernel(workspace)
    assert "hours: cpu has no weekly quota" in account(OK)
    assert server.called("GetAcceleratorQuotaStatistics") == []


def test_sessions_that_were_begun_from_here(server, workspace, account, error_of, retries):
    gate = threading.Event()
    for slug in ("busy-one", "busy-two"):
        server.kernels.scripts[f"alice/{slug}"] = Script(gate=gate)
        push_it(workspace, retries, slug)
    make_kernel(workspace, **GPU)
    said = (
        "sessions: 2 of 2 on gpu run that were pushed from here (alice/busy-one version 1, alice/busy-two version 1); "
        "wait, or stop one under View Active Events at https://www.kaggle.com/code"
    )
    assert account(BAD) == [said]
    assert error_of() == f"tiny-kernel: not pushed: {said}"
    server.kernels.scripts["alice/busy-one"] = Script()
    assert push_it(workspace, retries, "busy-one", keywords=["its own former version makes room"]).version.version == 2
    assert "sessions: 1 of 2 on gpu run that were pushed from here" in account(OK)
    gate.set()


def test_sessions_of_long_ago_and_deleted_kernels_are_none(server, workspace, account, retries):
    push_it(workspace, retries, "gone-since")
    del server.kernels.sessions["alice/gone-since"]
    push_it(workspace, retries, "long-ago")
    began = datetime.now(UTC) - timedelta(hours=15)
    log = PushLog(workspace, "long-ago")
    (push,) = log.pushes()
    log.path.write_text(replace(push.entry, time=began.isoformat(timespec="seconds")).line() + "\n")
    server.requests.clear()
    make_kernel(workspace, **GPU)
    assert "sessions: 0 of 2 on gpu run that were pushed from here" in account(OK)
    assert [body["kernelSlug"] for body in server.called("GetKernelSessionStatus")] == ["gone-since"]


def test_a_push_refuses_what_needs_no_asking(server, workspace, error_of):
    """One line with the first failure; nothing left this machine."""
    contest = {"competition_sources": ["tiny-task"], "enable_internet": True}
    make_kernel(workspace, title="Other words", datasets=WEIGHTS, **contest)
    assert error_of() == (
        "tiny-kernel: not pushed: title: 'Other words' makes the slug other-words, not tiny-kernel; rename the folder "
        "or the title; 1 more: podium kernel check tiny-kernel"
    )
    assert not {"StartBlobUpload", "CreateDataset", "SaveKernel"} & {name for name, _ in server.requests}


def test_a_kaggle_that_stumbles_while_it_is_asked(server, workspace, run_push):
    server.competitions["other-task"] = StandInCompetition({"a": b"1"})
    make_kernel(workspace, competition_sources=["other-task"])
    server.faults["GetCompetition"].append(Refusal(503, "busy"))
    assert run_push().version.version == 1


def test_every_rule_that_asks_is_in_the_table():
    rules = [name for name in dir(kaggle_account) if name.startswith("check_")]
    assert sorted(rule.__name__ for rule in ACCOUNT_RULES) == rules
