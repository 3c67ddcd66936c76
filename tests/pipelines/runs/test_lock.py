"""One process at a time writes a run: the others are told who does, and a lock dies with its process."""

import json
import multiprocessing
import os
import signal
import time

import pytest
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs import lock as run_lock
from pipelines.runs.run import Run
from pipelines.runs.importing import import_run
from pipelines.runs.keeping import prune
from pipelines.runs.lock import beginning, check_unlocked, find_holder, locked_run, remove_abandoned
from pipelines.submissions.submit import submit
from pipelines.tracking.jsonl import open_jsonl_tracker
from pipelines.training.execution import sole_writer
from pipelines.training.predict import predict
from pipelines.workspace import Workspace

RUN = "20261121-100000-bbbb"
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def run(workspace):
    folder = make_run(workspace, RUN, submission=("id,label", "a,1"), competition="mnist_digits")
    write_lines(folder / "fold0" / "resume" / "step-00000002" / "state.json", "{}")
    open_jsonl_tracker(folder, competition="mnist-digits").finish("FINISHED")
    return folder


def hold(run, started):
    with locked_run(run, print):
        started.set()
        time.sleep(60)


@pytest.fixture
def holder(run):
    """Another process that writes the run until the test ends."""
    started = FORK.Event()
    process = FORK.Process(target=hold, args=(run, started))
    process.start()
    assert started.wait(timeout=60)
    yield process
    process.kill()
    process.join(timeout=60)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(action):
    with pytest.raises(PodiumError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_who_writes_a_run_is_named_and_nothing_is_changed(workspace, run, holder):
    before = contents(run)

    def train():
        with sole_writer(Run(run), print):
            raise AssertionError("two write one run")

    for action in (
        train,
        lambda: check_unlocked(run),
        lambda: submit(workspace, run=RUN),
        lambda: predict(workspace, experiment=None, run=RUN),
        lambda: import_run(workspace, run, None),
    ):
        message = error_of(action)
        assert message.startswith(f"{run}: is being written by `")
        assert f"(process {holder.pid} of " in message
        assert message.endswith(" UTC; wait until it ends, or stop it with Ctrl-C and then try again")
    assert contents(run) == before


def test_prune_leaves_a_run_alone_that_is_being_written(workspace, run, holder, capsys):
    before = contents(run)
    assert prune(workspace) == 0
    assert contents(run) == before
    assert f"{run}: is being written, and left alone" in capsys.readouterr().out.replace("\n", "")


def test_a_killed_holder_holds_nothing_back(workspace, run, holder):
    lock = run.with_name(f".{RUN}.lock")
    assert json.loads(lock.read_text())["pid"] == holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(timeout=60)
    assert lock.exists(), "left behind by the kill"
    assert find_holder(run) is None
    with locked_run(run, print):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
        assert find_holder(run) is not None
    assert not lock.exists()
    assert prune(workspace) == 3


def test_a_worker_of_a_dead_training_holds_nothing_back(run):
    """Workers that load data are forked, and live on for seconds after a kill of the training."""
    reading, writing = os.pipe()

    def train():
        with locked_run(run, print):
            FORK.Process(target=load).start()
            time.sleep(60)

    def load():
        os.write(writing, f"{os.getpid()}\n".encode())
        time.sleep(60)

    training = FORK.Process(target=train)
    training.start()
    worker = int(os.read(reading, 100))
    training.kill()
    os.waitpid(training.pid, 0)  # join would wait for the worker as well
    os.kill(worker, 0)  # it lives
    with locked_run(run, print):
        pass
    os.kill(worker, signal.SIGKILL)


def test_a_run_that_was_copied_with_a_lock_file_is_free(run):
    who = {"command": "podium train x", "host": "elsewhere", "pid": 1, "user": "ada", "since": "2026-11-21T10:00:00"}
    write_lines(run.with_name(f".{RUN}.lock"), json.dumps(who))
    with locked_run(run, print):
        assert find_holder(run) is not None


def test_a_file_system_without_locks_is_said_and_goes_on(run, monkeypatch):
    def refuse(path, *, wait):
        raise run_lock.Unlockable(38, "Function not implemented")

    monkeypatch.setattr(run_lock, "take_lock", refuse)
    said = []
    with locked_run(run, said.append):
        pass
    assert said == [f"{run.parent}: the file system has no locks; see to it that only one process writes {RUN}"]
    assert sorted(path.name for path in run.parent.iterdir()) == [RUN]


def test_the_lock_is_no_file_of_the_run(run):
    before = set(run.rglob("*"))
    with locked_run(run, print):
        assert set(run.rglob("*")) == before
        assert not [path for path in Run(run).prediction_files() if "lock" in path.name]


# -- the folder of a run until its run.json stands ---------------------------------------------------------------------


def begin_and(end, workspace, name, started=None):
    with beginning(workspace.runs / "tiny" / name, print):
        (workspace.runs / "tiny" / name / "config.yaml").write_text("half")
        if started is not None:
            started.set()
        end()


def test_a_run_that_fails_before_it_is_one_leaves_nothing(workspace):
    with pytest.raises(ZeroDivisionError):
        begin_and(lambda: 1 // 0, workspace, RUN)
    assert list(workspace.runs.rglob("*")) == [workspace.runs / "tiny"]


def test_what_a_kill_left_is_removed_by_the_next_run_of_any_experiment(workspace, run, capsys):
    process = FORK.Process(target=begin_and, args=(lambda: os.kill(os.getpid(), signal.SIGKILL), workspace, RUN))
    process.start()
    process.join(timeout=60)
    killed = workspace.runs / "tiny" / RUN
    assert process.exitcode == -signal.SIGKILL
    assert (killed / "config.yaml").exists()
    lost = workspace.runs / "tiny" / "20261121-100000-cccc"
    write_lines(lost / "fold0" / "resume" / "step-00000002" / "state.json", "{}")
    write_lines(workspace.runs / "tiny" / "notes" / "mine.txt", "not a run's name")
    write_lines(workspace.runs / "tiny" / ".20261121-100000-dddd.lock", "killed before the folder was made")
    others = contents(run)
    with beginning(workspace.runs / "other" / "20261121-110000-eeee", print):
        pass
    assert capsys.readouterr().out == f"{killed}: removed; a kill came before it was a run\n"
    assert sorted(path.name for path in killed.parent.iterdir()) == [lost.name, "notes"]
    assert contents(run) == others


def test_what_a_living_process_makes_is_left_alone(workspace):
    started = FORK.Event()
    process = FORK.Process(target=begin_and, args=(lambda: time.sleep(60), workspace, RUN, started))
    process.start()
    try:
        assert started.wait(timeout=60)
        assert remove_abandoned(workspace.runs) == []
        assert (workspace.runs / "tiny" / RUN / "config.yaml").exists()
    finally:
        process.kill()
        process.join(timeout=60)
    assert remove_abandoned(workspace.runs) == [workspace.runs / "tiny" / RUN]
    assert list((workspace.runs / "tiny").iterdir()) == []
