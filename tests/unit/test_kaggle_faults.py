"""What goes wrong on the way to Kaggle: no silent success, nothing sent twice, and each message says what to do.

The faults are switched on in the stand-in; client, stages and HTTP are the real ones. After every test nothing that it
wrote or printed holds the key.
"""

import io
import json
import threading
import time
from dataclasses import replace

import pytest
from built_kernels import make_kernel, make_notebook
from kaggle_standin import (
    Cut,
    Extra,
    KaggleStandIn,
    Refusal,
    Reply,
    Script,
    Spoil,
    StandInCompetition,
    Stop,
    connect,
    sign_in,
)
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.adapters import kaggle_session
from pipelines.adapters.kaggle_client import KaggleClient
from pipelines.adapters.kaggle_kernels import KaggleKernels
from pipelines.adapters.kaggle_retries import Retries
from pipelines.config.workspace import Workspace
from pipelines.engine.run_index import find_run, load_submissions
from pipelines.errors import PodiumError
from pipelines.stages.push import push
from pipelines.stages.submit import submit

KEY = "planted-4f1d9c0b7a"
KERNEL, DATASET = "alice/tiny-kernel", "alice/tiny-weights"
PAGE = f"https://www.kaggle.com/code/{KERNEL}"
WEIGHTS = {DATASET: {"model.bin": bytes(range(256)) * 400}}
RUN = "20261121-100000-bbbb"


@pytest.fixture
def server(tmp_path, monkeypatch):
    sign_in(monkeypatch, tmp_path / "home", key=KEY)
    contest = StandInCompetition({"test.csv": b"id\n1\n"})
    with KaggleStandIn({"tiny-task": contest}, log=tmp_path / "requests.jsonl") as server:
        server.keys["alice"] = KEY
        server.kernels.scripts[KERNEL] = Script(("done",), files={"submission.csv": b"id,label\n1,0\n"})
        connect(monkeypatch, server)
        yield server


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "checkout")


@pytest.fixture(autouse=True)
def no_key_anywhere(tmp_path, capfd):
    yield
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


@pytest.fixture
def naps():
    """The pauses that were taken, in seconds; none of them is waited for."""
    return []


@pytest.fixture
def retries(naps):
    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(0.005)

    return Retries(sleep=nap)


@pytest.fixture
def run_push(workspace, retries):
    def run(**options):
        return push(workspace, "tiny-kernel", retries=retries, console=Console(file=io.StringIO()), **options)

    return run


@pytest.fixture
def error_of(run_push):
    def message(action=run_push, **options) -> str:
        with pytest.raises(PodiumError) as error:
            action(**options)
        assert "\n" not in str(error.value)
        assert KEY not in str(error.value)
        return str(error.value)

    return message


def versions(server) -> int:
    return len(server.kernels.sessions.get(KERNEL, []))


# -- saving a version ------------------------------------------------------------------------------------------------


def test_429_waits_as_long_as_it_says(server, workspace, run_push, naps):
    make_kernel(workspace)
    server.faults["SaveKernel"] += [Refusal(429, "slow down", retry_after=7), Refusal(429, "slow down")]
    assert run_push()["version"] == 1
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
    assert run_push()["version"] == 1
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
    assert run_push(wait=True)["version"] == num_before + 1
    assert versions(server) == len(server.called("SaveKernel")) == num_before + 1


def test_an_answer_that_never_comes_ends_the_call_and_not_the_push(server, workspace, run_push, monkeypatch):
    monkeypatch.setattr(kaggle_session, "TIMEOUT", (1.0, 0.3))
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Cut(is_done=True, seconds=0.6))
    assert run_push()["version"] == 1
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
def test_a_version_without_one_of_its_sources_is_a_failure(server, workspace, run_push, error_of, kind, name, is_lost):
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
    server.kernels.models.add("alice/mt5/pyTorch/base/3")
    assert run_push()["version"] == 2, "the same content may be pushed again, for it never ran whole"


def test_a_missing_version_number_is_looked_up_or_a_failure(server, workspace, run_push, error_of):
    make_kernel(workspace)
    server.faults["SaveKernel"].append(Extra({"versionNumber": None}))
    assert run_push()["version"] == 1
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
    assert run_push()["version"] == 1
    server.faults["GetKernel"].append(unnumbered)
    assert run_push()["version"] == versions(server) == len(server.called("SaveKernel")) == 1


def test_a_kernel_that_was_deleted_is_pushed_anew(server, workspace, run_push):
    make_kernel(workspace)
    run_push()
    run_push(again=True)
    del server.kernels.sessions[KERNEL][1]
    assert run_push()["version"] == 2


def test_the_session_limit(server, workspace, run_push, error_of):
    gate = threading.Event()
    for slug in ("busy-one", "busy-two"):
        make_kernel(workspace, slug=slug, enable_gpu=True, machine_shape="NvidiaTeslaT4")
        server.kernels.scripts[f"alice/{slug}"] = Script(gate=gate)
        push(workspace, slug, console=Console(file=io.StringIO()))
    make_kernel(workspace, enable_gpu=True, machine_shape="NvidiaTeslaT4")
    assert error_of() == (
        f"{KERNEL}: Kaggle did not take it: Maximum batch GPU session count of 2 reached.; wait until a running kernel "
        "ends, or stop one under View Active Events at https://www.kaggle.com/code, then push again"
    )
    make_kernel(workspace)
    assert run_push()["version"] == 1, "of CPU sessions there are five"
    gate.set()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cells": ("#" * 1_000_001,)}, "The kernel source must be less than 1 megabytes in size; let the source"),
        ({"enable_internet": True}, "Internet must be disabled for the competition tiny-task; write internet: false"),
    ],
)
def test_what_kaggle_refuses_at_the_door(server, workspace, error_of, changes, said):
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


# -- datasets --------------------------------------------------------------------------------------------------------


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
    assert run_push()["datasets"] == {DATASET: 1}
    assert [body["range"] for body in server.called("upload")] == ranges
    assert server.datasets.datasets[DATASET].versions[0].files == WEIGHTS[DATASET]
    assert not [path for path in (workspace.build / "datasets").iterdir() if path.name.startswith(".")]


def test_an_upload_that_is_refused(server, workspace, run_push, error_of):
    make_kernel(workspace, datasets=WEIGHTS)
    server.faults["upload"].append(Stop(0, status=400))
    assert error_of() == f"{DATASET}: 0 of 1 files arrived; push again"
    assert (server.datasets.datasets, versions(server)) == ({}, 0)
    assert run_push()["version"] == 1


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
    assert run_push()["datasets"] == {DATASET: expected}
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
    assert client.datasets.upload(folder, "0" * 64, client.datasets.current(DATASET)) == 2
    state = client.datasets.current(DATASET)
    assert (state.version, state.status) == (1, "READY")
    wait = client.datasets.wait_until_ready
    assert error_of(lambda: wait(DATASET, 2, patience_seconds=0)) == (
        f"{DATASET}: version 2 is not ready after 0 s (version 1 is READY); push again to go on waiting: nothing is "
        "uploaded twice"
    )
    wait(DATASET, 2)
    assert client.datasets.current(DATASET).version == 2


# -- the run ---------------------------------------------------------------------------------------------------------


def test_a_version_is_unknown_in_its_first_seconds(server, workspace, run_push):
    make_kernel(workspace)
    server.kernels.num_unknown_polls, server.kernels.num_queued_polls = 2, 2
    assert run_push(wait=True)["status"] == "COMPLETE"


def test_status_and_log_that_stumble_do_not_end_the_waiting(server, workspace, run_push):
    make_kernel(workspace)
    server.kernels.scripts[KERNEL] = Script(("one", "two"), gate=threading.Event(), files={"a": b"1"})
    server.faults["GetKernelSessionStatus"] += [Refusal(500, "oops"), Cut(), Refusal(429, "slow", retry_after=2)]
    server.faults["stream"] += [Refusal(500, "oops"), Refusal(404, "no stream")]
    threading.Timer(0.3, server.kernels.scripts[KERNEL].gate.set).start()
    assert run_push(wait=True)["status"] == "COMPLETE"
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
    assert run_push(again=True)["version"] == 2


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


def test_a_notebook_without_a_kernelspec(server, workspace, error_of):
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
    assert run_push(wait=True)["status"] == "COMPLETE"
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


# -- submissions -----------------------------------------------------------------------------------------------------


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
    assert (entry["ref"], entry["status"], entry["public"]) == (5000, "COMPLETE", {"rmse": 0.81234})
    assert list(server.submissions) == [5000]
    assert load_submissions(find_run(workspace.runs, RUN)) == [entry]


def test_404_right_after_the_submission(server, run_submit):
    server.contests.num_unknown_polls = 2
    assert run_submit()["public"] == {"rmse": 0.81234}


def test_the_daily_limit(server, workspace, run_submit, error_of):
    contest = server.competitions["tiny-task"]
    contest.num_today = contest.num_total = 5
    assert error_of(run_submit).startswith("tiny-task: all submissions of today (5) are used; Kaggle opens again at ")
    server.faults["GetSubmissionLimits"].append(Reply({"numToday": 4, "numTotal": 9, "numAllowedNow": 1}))
    assert error_of(run_submit) == (
        "tiny-task: Kaggle answered 400: Your team has used its daily Submission allowance (5) today; wait until "
        "midnight UTC"
    )
    assert (server.submissions, load_submissions(find_run(workspace.runs, RUN))) == ({}, [])


def test_a_wrong_file_costs_no_submission(server, workspace, run_submit, error_of):
    write_lines(find_run(workspace.runs, RUN).submission, "id,label", "2,0.5")
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
