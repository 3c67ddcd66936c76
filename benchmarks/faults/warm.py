"""A warm process that forks podium's commands, so that a fault falls into their work and not into their imports.

It runs under the interpreter of the checkout that is tried, and reads one request a line:
`{"id", "argv", "env", "out", "err", "events", "root", "kill"}`. It answers `{"id", "pid"}` at once and
`{"id", "status"}` at the end. A fork joins its threads and calls its exit functions as any interpreter does, but leaves
out the destructors of C++, which would wait for threads that only the warm process has.
"""

import atexit
import importlib
import json
import os
import pkgutil
import re
import select
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

HEAVY = (
    "torch", "transformers", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.pipeline", "safetensors.torch",
    "mlflow", "mlflow.tracking", "matplotlib.pyplot", "rich.console",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def import_all() -> None:
    """The libraries, and every module of the checkout, whatever they are called there."""
    for name in HEAVY:
        importlib.import_module(name)
    for package in ("components", "pipelines"):
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}.", onerror=lambda _: None):
            if ".search" in module.name or module.name.endswith("__main__"):
                continue  # the search app draws itself when it is imported, and ONNX's threads do not live on in a fork
            try:
                importlib.import_module(module.name)
            except Exception as error:  # a part that this machine lacks is none of the matrix's
                print(f"{module.name}: {error}", file=sys.stderr)


def serve() -> dict[str, Any]:
    """Fork for each request until stdin ends; returns in the forks only, with the request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    names: dict[int, int] = {}
    pending = b""
    print(json.dumps({"id": -1, "ready": True}), file=answers)
    while True:
        readable = select.select([0], [], [], 0.01)[0]
        if readable:
            content = os.read(0, 1 << 16)
            if not content:
                os._exit(0)
            *lines, pending = (pending + content).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    answers.close()
                    return dict(request)
                names[pid] = request["id"]
                print(json.dumps({"id": request["id"], "pid": pid}), file=answers)
        while names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in names:
                code = os.waitstatus_to_exitcode(status)
                print(json.dumps({"id": names.pop(pid), "status": code}), file=answers)


def become(request: dict[str, Any]) -> None:
    """Take the request's streams, environment and faults."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for name, value in request["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if request.get("file_bytes"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
    watch(request["root"], request.get("kill") or {}, Path(request["events"]))


def watch(root: str, kill: dict[str, Any], events: Path) -> None:
    """Count what changes files below `root`; a SIGKILL before the change number `at`, of those that `pattern` finds."""
    pattern, count, process = re.compile(kill.get("pattern", "")), 0, os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITES:
                return
        elif event not in CHANGES:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        target = arguments[1] if event == "os.rename" else ""
        named = f"{path} {target}"
        if root in named and pattern.search(named) and os.getpid() == process:
            count += 1
            if count == kill.get("at"):
                os.kill(process, signal.SIGKILL)

    sys.addaudithook(hook)
    atexit.register(lambda: events.write_text(str(count)))


def run(argv: list[str]) -> int:
    """The exit code that an interpreter would end with."""
    from pipelines.cli import main

    try:
        main(argv)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> None:
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    import_all()
    request = serve()
    become(request)
    sys.argv = ["podium", *request["argv"]]
    end(run(request["argv"]))
