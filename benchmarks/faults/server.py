"""A tracking server that dies, hangs or never was: no point lost or double in the end, and nobody waits long for it."""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from faults.cases import Bench, Case, Wrong, expect, refusal
from faults.inputs import TEXT, Tracked, find_leftovers, find_runs, read_mlflow, read_record
from faults.podium import Command

OUTAGE_SECONDS = 30.0
WAIT_SECONDS = 60.0
"""So long a command may wait for a server beyond its own work."""
CAP_SECONDS = 180.0
"""A wait that is given up, and counted as too long."""
WORDS = (
    *TEXT, "tracking.name=mlflow", "fold=0", "training.num_steps=400", "training.log_every_steps=1",
    "training.eval_every_steps=200", "training.checkpoint_every_steps=400",
)  # fmt: skip


def cases() -> Iterator[Case]:
    yield Case("server", "killed in mid-run, back after 30 s", "server killed and back", partial(_outage, "back"))
    yield Case("server", "killed in mid-run, back for the next command", "server gone", partial(_outage, "gone"))
    yield Case("server", "stops answering in mid-run (SIGSTOP)", "server stopped", partial(_outage, "stopped"))
    yield Case("server", "accepts and never answers, from the start", "server silent", _silent)
    yield Case("server", "nothing there, from the start", "server absent", _absent)


class Server:
    """MLflow's own server on a database, as users start it."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.database, self._folder = folder / "mlflow.db", folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._program = bench.python.with_name("mlflow")
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        words = ["server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.database}"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError("MLflow's server does not start")

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait(30)


@contextmanager
def server_for(bench: Bench, root: Path) -> Iterator[Server]:
    server = Server(bench, root)
    server.start()
    try:
        yield server
    finally:
        server.send(signal.SIGKILL)


def _expected(bench: Bench) -> Tracked:
    """What a server that is always there holds in the end: equal to a local database."""

    def make(folder: Path) -> Tracked:
        root = bench.copy(bench.template, folder)
        expect(bench.train(root, WORDS, timeout=400))
        return read_mlflow(root / "mlflow.db")

    return bench.once("server twin", make)


def _outage(kind: str, bench: Bench, source: random.Random) -> str:
    expected = _expected(bench)
    with bench.workspace() as root, server_for(bench, root) as server:
        training = bench.podium.start(root, ["train", *WORDS], env={"MLFLOW_TRACKING_URI": server.uri})
        _wait_for_points(server, training)
        server.send(signal.SIGSTOP if kind == "stopped" else signal.SIGKILL)
        if kind == "back":
            training.has_ended.wait(OUTAGE_SECONDS)
            server.start()
        waited = _seconds_after_finish(root, training)
        if waited is None:
            training.kill()
        else:
            expect(training.wait(5))
        if kind == "gone":
            server.start()
        server.send(signal.SIGCONT)
        _give_next_commands(bench, root, server)
        return _judge(read_mlflow(server.database), expected, waited, root)


def _wait_for_points(server: Server, training: Command) -> None:
    """Until the training is in the middle of its steps and some of them are at the server."""
    while not training.has_ended.wait(0.2):
        if len(read_mlflow(server.database).points) > 20:
            return
    raise Wrong(f"training: ended before it was disturbed: {training.wait().err[-300:]}")


def _seconds_after_finish(root: Path, training: Command) -> float | None:
    """From run.json's "finished" to the end of the process; None where it takes longer than anybody waits."""
    finished = None
    while not training.has_ended.wait(0.1):
        if finished is None and find_runs(root) and read_record(find_runs(root)[0])["status"] == "finished":
            finished = time.monotonic()
        if finished is not None and time.monotonic() - finished > CAP_SECONDS:
            return None
        if time.monotonic() - training.started > 500:
            raise Wrong("hangs: the training does not end")
    return training.ended - finished if finished else 0.0


def _give_next_commands(bench: Bench, root: Path, server: Server) -> None:
    """What a user does next, with the server there again."""
    environment = {"MLFLOW_TRACKING_URI": server.uri}
    (run,) = find_runs(root)
    for words in (["resume", "--run", run.name], ["submit", "--run", run.name]):
        refusal(bench.podium.run(root, *words, env=environment, timeout=300))


def _judge(found: Tracked, expected: Tracked, waited: float | None, root: Path) -> str:
    lost = expected.keys() - found.keys()
    status = sorted(found.status.values())
    seconds = f"over {CAP_SECONDS:.0f}" if waited is None else f"{waited:.0f}"
    facts = f"{lost.total()} of {expected.keys().total()} points lost, {found.num_double} double, waited {seconds} s"
    if lost or found.num_double:
        raise Wrong(f"points: {facts}; runs are {', '.join(status)}")
    if set(status) != {"FINISHED"}:
        raise Wrong(f"status: runs are {', '.join(status)}; {facts}")
    if waited is None or waited > WAIT_SECONDS:
        raise Wrong(f"waits: {facts}")
    if left := find_leftovers(root):
        raise Wrong(f"left behind: {', '.join(left)}")
    return facts


def _silent(bench: Bench, source: random.Random) -> str:
    with bench.workspace() as root, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        return _refused(bench, root, f"http://127.0.0.1:{listener.getsockname()[1]}")


def _absent(bench: Bench, source: random.Random) -> str:
    with bench.workspace() as root, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        return _refused(bench, root, f"http://127.0.0.1:{taken.getsockname()[1]}")


def _refused(bench: Bench, root: Path, uri: str) -> str:
    """A training that cannot be tracked does not begin: one line soon, and no run folder."""
    outcome = bench.podium.run(root, "train", *WORDS, env={"MLFLOW_TRACKING_URI": uri}, timeout=CAP_SECONDS)
    line = refusal(outcome)
    if not line:
        raise Wrong("not refused: the training went on without its tracker")
    if outcome.seconds > WAIT_SECONDS:
        raise Wrong(f"waits: {outcome.seconds:.0f} s before it said {line[:150]}")
    if left := [path for path in (root / "runs").glob("*/*") if path.is_dir()]:
        raise Wrong(f"left behind: {len(left)} run folders")
    return f"one line after {outcome.seconds:.0f} s"
