"""A case of the matrix, what the cases share, and what is kept of them."""

import random
import re
import shutil
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from faults.inputs import make_template
from faults.podium import Outcome, Podium

T = TypeVar("T")


class Wrong(Exception):
    """What a case found that must not be; its first word or words before the colon are its kind."""


@dataclass(frozen=True)
class Case:
    """`check` returns the kind of a right end ("identical", "clear line", ...) or raises `Wrong`."""

    part: str
    row: str
    name: str
    check: Callable[["Bench", random.Random], str]


@dataclass
class Row:
    """A line of the table: its trials, how many were right and how, and what was wrong."""

    part: str
    row: str
    trials: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    exceptions: list[dict[str, str]] = field(default_factory=list)

    @property
    def right(self) -> int:
        return self.trials - len(self.exceptions)


class Bench:
    """The warm process, workspaces to spoil, and what was made once for many cases."""

    def __init__(self, checkout: Path, python: Path, seed: int) -> None:
        self.checkout, self.python, self.seed = checkout, python, seed
        self.folder = Path(tempfile.mkdtemp(prefix="podium-reliability-"))
        self.template = make_template(self.folder / "template", checkout)
        self.podium = Podium(python, self.folder / "commands")
        self._made: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        expect(self.podium.run(self.template, "tracking", "prepare"))

    def once(self, name: str, make: Callable[[Path], T]) -> T:
        """What `make` returned for a folder of this name, which it fills; other threads wait for it."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._made:
                self._made[name] = make(self.folder / "made" / re.sub(r"\W+", "_", name))
            return self._made[name]  # type: ignore[no-any-return]

    def copy(self, source: Path, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, symlinks=True)
        return target

    @contextmanager
    def workspace(self, source: Path | None = None) -> Iterator[Path]:
        """A copy of the template, or of another workspace, for one case. Copies have paths of one length."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="case-") as folder:
            yield self.copy(source or self.template, Path(folder) / "w")

    @contextmanager
    def original(self, made: Path) -> Iterator[Path]:
        """A workspace of `once` itself, put back first: for runs whose records name the database beside them."""
        with self._lock:
            lock = self._locks.setdefault(f"original {made.name}", threading.Lock())
        with lock:
            saved = made.with_name(f"{made.name}-saved")
            if not saved.is_dir():
                self.copy(made, saved)
            shutil.rmtree(made)
            yield self.copy(saved, made)

    def train(self, root: Path, words: Sequence[str], **options: Any) -> Outcome:  # noqa: ANN401
        return self.podium.run(root, "train", *self.words(words), **options)

    def words(self, words: Sequence[str]) -> list[str]:
        return [word.replace("{template}", str(self.template)) for word in words]

    def close(self) -> None:
        self.podium.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def expect(outcome: Outcome) -> Outcome:
    """The outcome of a command that has to succeed."""
    if fault := outcome.fault():
        raise Wrong(f"{fault} ({outcome.words[:80]})")
    if outcome.code:
        raise Wrong(f"refused: {outcome.words[:80]}: {outcome.line[:400]}")
    return outcome


def refusal(outcome: Outcome) -> str:
    """The line of a command that was refused; "" where it succeeded. Raises Wrong for any other end."""
    if fault := outcome.fault():
        raise Wrong(f"{fault} ({outcome.words[:80]})")
    return outcome.line if outcome.code else ""


def run_cases(bench: Bench, cases: Sequence[Case], jobs: int, say: Callable[[str], None]) -> tuple[list[Row], float]:
    """Every case, and the rows of the table; what is wrong is said at once."""
    rows = {(case.part, case.row): Row(case.part, case.row) for case in cases}
    lock, started = threading.Lock(), time.monotonic()

    def run(case: Case) -> None:
        try:
            kind, wrong = case.check(bench, random.Random(f"{bench.seed} {case.name}")), ""
        except Wrong as error:
            kind, wrong = str(error).partition(":")[0], str(error)
        except Exception:  # an expectation of the harness itself that does not hold of what the command left
            kind, wrong = "harness", f"harness: {traceback.format_exc()[-600:]}"
        with lock:
            row = rows[case.part, case.row]
            row.trials += 1
            row.kinds[kind] += 1
            if wrong:
                wrong = wrong.replace(str(bench.folder), "").replace("\n", " ")
                row.exceptions.append({"case": case.name, "said": wrong})
                say(f"WRONG {case.name}: {wrong}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, cases))
    return list(rows.values()), time.monotonic() - started
