"""Full and read-only disks: one line, nothing half-written, and the same bytes once there is room to go on.

Each workspace lies on a disk of its own in memory, which root can mount. Other users get the nearest thing: a limit on
the size of files, and folders that may not be written.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults.cases import Bench, Case, Wrong, expect, refusal
from faults.damages import make_stopped
from faults.inputs import (
    TABLE,
    TEXT,
    differences,
    find_disagreement,
    find_leftovers,
    find_runs,
    read_products,
    read_tree,
)
from faults.kills import PREPARED, go_on, make_finished, text_finished

PAGE = 4096
CAN_MOUNT = os.geteuid() == 0
SHARES = {"no room": (0.0, 0), "one page": (0.0, 1), "a third of the room": (0.33, 0), "most of the room": (0.8, 0)}


@dataclass(frozen=True)
class Job:
    """A command, the workspace it runs on, what it leaves, and how one goes on after it failed."""

    words: tuple[str, ...]
    make: Callable[[Bench], Path]
    result: Callable[[Path], Mapping[str, bytes]]
    goes_on: Callable[[Bench, Path, Sequence[str]], None]


def cases() -> Iterator[Case]:
    for name in JOBS:
        for share in SHARES:
            yield Case("disks", f"full: {name}", f"disk full {name} {share}", partial(_full, name, share))
        yield Case("disks", f"read-only: {name}", f"disk read-only {name}", partial(_read_only, name))


# -- commands --------------------------------------------------------------------------------------------------------


def _template(bench: Bench) -> Path:
    return bench.template


def _without_lock(bench: Bench) -> Path:
    """The template with an experiment that the lock does not know."""

    def make(folder: Path) -> Path:
        lock = bench.copy(bench.template, folder) / "experiments" / "resolved.lock"
        lock.write_text("".join(lock.read_text().splitlines(keepends=True)[:-1]))
        return folder

    return bench.once("without lock", make)


def _table_finished(bench: Bench) -> Path:
    return make_finished(bench, "table", (*TABLE, "tracking.name=none"))


def _again(bench: Bench, root: Path, words: Sequence[str]) -> None:
    expect(bench.podium.run(root, *words))


def _resumed(bench: Bench, root: Path, words: Sequence[str]) -> None:
    if words[0] == "train":
        go_on(bench, root, words[1:], lambda _: False)
    elif "finished already" not in (line := refusal(bench.podium.run(root, *words))) and line:
        raise Wrong(f"refused: resume: {line[:300]}")


def _submitted(bench: Bench, root: Path, words: Sequence[str]) -> None:
    refusal(bench.podium.run(root, *words))
    if wrong := find_disagreement(root):
        raise Wrong(f"disagreement: {wrong}")


def _products(root: Path) -> Mapping[str, bytes]:
    return read_products(find_runs(root)[-1])


def _tree(folder: str, root: Path) -> Mapping[str, bytes]:
    return read_tree(root / folder, r"run\.json$", r"\.lock$")


def _submission(root: Path) -> Mapping[str, bytes]:
    return {"submission.csv": (find_runs(root)[-1] / "submission.csv").read_bytes()}


def _board(root: Path) -> Mapping[str, bytes]:
    sent = (root / "data" / "local_host").glob("*/leaderboard.jsonl")
    return {"submissions": str(sum(len(path.read_text().splitlines()) for path in sent)).encode()}


def _nothing(root: Path) -> Mapping[str, bytes]:
    return {}


JOBS: Mapping[str, Job] = {
    **{
        f"train, tracker {name}": Job(("train", *TEXT, f"tracking.name={name}"), _template, _products, _resumed)
        for name in ("none", "jsonl", "mlflow")
    },
    "resume": Job(("resume", "--run", "{run}"), make_stopped, _products, _resumed),
    "submit": Job(("submit", "--run", "{run}"), _table_finished, _board, _submitted),
    "predict": Job(("predict", "--run", "{run}"), text_finished, _submission, _again),
    "data prepare": Job(("data", "prepare", PREPARED, "--force"), _template, partial(_tree, "data"), _again),
    "new experiment": Job(
        ("new", "experiment", "abc", "--from", "mt5_adafactor"), _template, partial(_tree, "experiments"), _again
    ),
    "lock": Job(("lock",), _without_lock, partial(_tree, "experiments"), _again),
    "runs prune": Job(("runs", "prune"), text_finished, partial(_tree, "runs"), _again),
    "find-lr": Job(("find-lr", *TEXT, "tracking.name=none"), _template, _nothing, _again),
    "kernel build": Job(("kernel", "build", "tiny-kernel"), text_finished, partial(_tree, "build"), _again),
}


def _words(job: Job, root: Path) -> list[str]:
    return [word.replace("{run}", find_runs(root)[-1].name) if "{" in word else word for word in job.words]


@dataclass(frozen=True)
class Expected:
    """What a command leaves on a disk with room, and the bytes that it needed of it."""

    result: Mapping[str, bytes]
    num_bytes: int


def _expected(bench: Bench, name: str) -> Expected:
    job = JOBS[name]

    def make(_: Path) -> Expected:
        with bench.workspace(job.make(bench)) as root:
            before = _size(root)
            expect(bench.podium.run(root, *_words(job, root)))
            return Expected(job.result(root), max(_size(root) - before, 16 * PAGE))

    return bench.once(f"disk {name}", make)


def _size(root: Path) -> int:
    return sum(-(-path.lstat().st_size // PAGE) * PAGE for path in root.rglob("*") if path.is_file())


# -- disks -----------------------------------------------------------------------------------------------------------


class Disk:
    """A workspace on a disk that can become full or read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "w"
        self.file_bytes: int | None = None

    def fill(self, free: int, needed: int) -> None:
        """Leave so many bytes; where nothing can be mounted, let no file grow beyond them."""
        if CAN_MOUNT:
            space = os.statvfs(self.folder)
            self._remount(f"size={(space.f_blocks - space.f_bfree) * space.f_frsize + free}")
        else:
            self.file_bytes = max(free // 4, 1)

    def lock(self) -> None:
        if CAN_MOUNT:
            self._remount("ro")
        else:
            subprocess.run(["chmod", "-R", "a-w", self.root], check=True)

    def free(self) -> None:
        self.file_bytes = None
        if CAN_MOUNT:
            self._remount("rw,size=1g")
        else:
            subprocess.run(["chmod", "-R", "u+w", self.root], check=True)

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True, capture_output=True)


@contextmanager
def disk_with(bench: Bench, source: Path) -> Iterator[Disk]:
    with bench.workspace(source) as workspace:
        disk = Disk(workspace.with_name("disk"))
        disk.folder.mkdir()
        if CAN_MOUNT:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "podium-reliability", disk.folder], check=True)
        try:
            shutil.move(workspace, disk.root)
            yield disk
        finally:
            if CAN_MOUNT:
                subprocess.run(["umount", "--lazy", disk.folder], check=True)
            workspace.mkdir(exist_ok=True)


def _full(name: str, share: str, bench: Bench, source: random.Random) -> str:
    expected = _expected(bench, name)
    fraction, num_pages = SHARES[share]
    free = int(expected.num_bytes * fraction * (0.8 + 0.4 * source.random())) // PAGE * PAGE + num_pages * PAGE
    with disk_with(bench, JOBS[name].make(bench)) as disk:
        disk.fill(free, expected.num_bytes)
        return _try(bench, disk, name, expected)


def _read_only(name: str, bench: Bench, source: random.Random) -> str:
    expected = _expected(bench, name)
    with disk_with(bench, JOBS[name].make(bench)) as disk:
        disk.lock()
        return _try(bench, disk, name, expected)


def _try(bench: Bench, disk: Disk, name: str, expected: Expected) -> str:
    """The command on its disk, and all that is wrong with how it ends, with what it leaves and with going on."""
    job, root = JOBS[name], disk.root
    words, before = _words(job, root), _empty_files(root)
    outcome = bench.podium.run(root, *words, file_bytes=disk.file_bytes)
    wrong = [outcome.fault()]
    if new := _empty_files(root) - before:
        wrong.append(f"empty files: {', '.join(sorted(new))}")
    disk.free()
    try:
        if outcome.code or name == "submit":
            job.goes_on(bench, root, words)
        if others := differences(dict(job.result(root)), dict(expected.result)):
            wrong.append(f"other bytes: {others}")
    except Wrong as error:
        wrong.append(f"does not go on: {error}")
    if left := find_leftovers(root):
        wrong.append(f"left behind: {', '.join(left)}")
    if any(wrong):
        raise Wrong("; ".join(filter(None, wrong)) + (f" (it said: {outcome.line[:200]})" if outcome.line else ""))
    return "one line, then identical" if outcome.code else "fitted"


def _empty_files(root: Path) -> set[str]:
    """Files without a byte, but for locks and a tracker's lines, which have none until there is something to say."""
    by_design = (".lock", "-wal", "-shm", "metrics.jsonl")
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(by_design))
    return {path.relative_to(root).as_posix() for path in files if path.stat().st_size == 0}
