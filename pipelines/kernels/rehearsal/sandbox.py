"""A kernel run offline, in a place laid out as Kaggle's: /kaggle/input read-only, /kaggle/working, no network.

The walls are `pipelines.kernels.rehearsal.walls`; where the system permits none, the kernel runs as a plain process and
the report says what was not kept from it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import psutil

from pipelines.errors import PodiumError
from pipelines.kaggle.metadata import KERNEL_METADATA, CodeFile
from pipelines.kernels.inputs import old_mount
from pipelines.kernels.rehearsal import cell_runner
from pipelines.kernels.rehearsal.walls import Place, close_walls
from pipelines.records import DamagedRecord, Record

LAYOUTS = ("new", "old")
POLL_SECONDS = 0.1
# What a rehearsal must share with the machine for equal bits: how many threads share a sum.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class SandboxReport:
    """How a kernel's run went.

    `ok` is whether every cell ran; `stopped_for` is "timeout" or "memory" where a limit ended it. `log` is in Kaggle's
    form, a JSON array of {"stream_name", "time", "data"}; `text` is what both streams said. `notebook` has the cells'
    outputs filled in; None where the process was killed. `origins` are the files that `components` and `pipelines` were
    imported from.
    """

    ok: bool
    seconds: float
    peak_bytes: int
    working: Path
    log: str
    text: str = ""
    stopped_for: str = ""
    not_isolated: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    notebook: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Facts(Record):
    """What `cell_runner` reports; nothing of it where it was killed before it could."""

    ok: bool = False
    peak_bytes: int = 0
    origins: tuple[str, ...] = ()
    notebook: Mapping[str, Any] | None = None


def run_kernel(
    kernel_dir: Path,
    inputs: Mapping[str, Path],
    working: Path,
    *,
    layout: str = "new",
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
    memory_bytes: int,
    python: Path | None = None,
) -> SandboxReport:
    """Run the `code_file` of a kernel folder and return how it went; what it wrote lies in `working`.

    `inputs` maps mounts below /kaggle/input, named as in the new layout (`datasets/owner/slug`), to folders here;
    `layout` "old" mounts them where Kaggle did before 2026 (`slug`). `environment` is all that the kernel sees beside
    PATH, HOME and the number of threads. `python` is the interpreter, this one by default. A kernel that fails is no
    error here: `ok` says so. Raises PodiumError for a folder without kernel-metadata.json or without its code file.
    """
    code = _code_file(kernel_dir)
    working.mkdir(parents=True, exist_ok=True)
    mounts = {mount if layout == "new" else old_mount(mount): folder.resolve() for mount, folder in inputs.items()}
    with tempfile.TemporaryDirectory(prefix="podium-kernel-") as name:
        source = Path(name) / "src"
        source.mkdir()
        shutil.copy2(code, source / code.name)
        runner = Path(cell_runner.__file__)
        shutil.copy2(runner, source / runner.name)
        place = Place(Path(name), mounts, working.resolve(), source, python or Path(sys.executable))
        walls = close_walls(place)
        variables = {**_variables(place.python, environment or {}), **walls.environment}
        inside = walls.root / "src"
        command = [str(place.python), "-I", str(inside / runner.name), str(inside / code.name), str(inside / "report")]
        run = _watch([*walls.command, *command], variables, walls.folder, timeout_s, memory_bytes)
        facts = _read_facts(source / "report")
    return SandboxReport(
        ok=facts.ok and run.exit_code == 0,
        seconds=run.seconds,
        peak_bytes=max(run.peak_bytes, facts.peak_bytes),
        working=working,
        log=json.dumps(run.entries, ensure_ascii=False),
        text="".join(run.texts),
        stopped_for=run.stopped_for,
        not_isolated=walls.missing,
        origins=facts.origins,
        notebook=facts.notebook,
    )


def _code_file(kernel_dir: Path) -> Path:
    metadata = kernel_dir / KERNEL_METADATA
    try:
        name = CodeFile.read(metadata).code_file
    except DamagedRecord as error:
        raise PodiumError(f"{error}; no kernel to run, build it with: podium kernel build") from error
    if not (kernel_dir / name).is_file():
        raise PodiumError(f"{metadata}: code_file {name} is not there; build the kernel again")
    return kernel_dir / name


def _variables(python: Path, environment: Mapping[str, str]) -> dict[str, str]:
    shared = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    own = {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
    return own | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | shared | dict(environment)


def _read_facts(path: Path) -> _Facts:
    return _Facts.read(path) if path.is_file() else _Facts()


# -- the process and its limits -------------------------------------------------------------------------------------


@dataclass
class _Run:
    entries: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    exit_code: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    stopped_for: str = ""


def _watch(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float, memory_bytes: int
) -> _Run:
    """Run a command to its end or to a limit; a kill takes all its processes with it."""
    run, started = _Run(), time.monotonic()
    with subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            with _reading(process, run, started):
                while process.poll() is None:
                    used = _used_bytes(process.pid)
                    run.peak_bytes = max(run.peak_bytes, used)
                    run.seconds = time.monotonic() - started
                    if used > memory_bytes or run.seconds > timeout_s:
                        run.stopped_for = "memory" if used > memory_bytes else "timeout"
                        break
                    time.sleep(POLL_SECONDS)
                _kill(process)
        except BaseException:
            _kill(process)
            raise
    run.exit_code, run.seconds = process.returncode, time.monotonic() - started
    return run


def _kill(process: "subprocess.Popen[str]") -> None:
    """End whatever is left of the command's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _used_bytes(pid: int) -> int:
    """Resident memory of a process and all below it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


@contextlib.contextmanager
def _reading(process: "subprocess.Popen[str]", run: _Run, started: float) -> Iterator[None]:
    """Take in both streams line by line, each with the second it arrived in."""

    def read(name: str, stream: TextIO) -> None:
        for line in stream:
            second = round(time.monotonic() - started, 3)
            run.entries.append({"stream_name": name, "time": second, "data": line})
            run.texts.append(line)

    assert process.stdout is not None
    assert process.stderr is not None
    streams = {"stdout": process.stdout, "stderr": process.stderr}
    readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams.items()]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        for reader in readers:
            reader.join()
