"""A SIGKILL at a seeded moment: what goes on afterwards ends in the bytes of what nobody touched.

Every second kill falls after a share of the time that the untouched twin took, the others before one of the changes to
files that it made, so that writing is hit as often as computing.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults.cases import Bench, Case, Wrong, expect, refusal
from faults.inputs import (
    FAMILIES,
    TABLE,
    TEXT,
    Tracked,
    differences,
    find_disagreement,
    find_leftovers,
    find_runs,
    read_lines,
    read_mlflow,
    read_products,
    read_record,
    read_tree,
)
from faults.podium import Outcome

NUM_KILLS = 7
COMMANDS = {"submit": 16, "data prepare": 6, "kernel build": 12, "runs import": 8, "runs prune": 8}
PREPARED = "bbc_headlines"


@dataclass(frozen=True)
class Twin:
    """A command that nobody touched: the workspace that it left, what it took, and its MLflow database."""

    root: Path
    outcome: Outcome
    tracked: Tracked | None = None


def cases() -> Iterator[Case]:
    for family in FAMILIES:
        for number in range(NUM_KILLS):
            name = f"kill train {family} {number}"
            yield Case("kills", "train and resume: " + family, name, partial(_training, family, number % 2 == 1))
    checks = {
        "submit": _submit,
        "data prepare": _prepare,
        "kernel build": _build,
        "runs import": _import,
        "runs prune": _prune,
    }
    for command, count in COMMANDS.items():
        for number in range(count):
            check = partial(checks[command], number % 2 == 1)
            yield Case("kills", command, f"kill {command} {number}", check)


def killed(bench: Bench, root: Path, words: Sequence[str], twin: Outcome, by_file: bool, source: random.Random) -> bool:
    """Run a command and kill it at a seeded moment; False where it ended before."""
    if by_file:
        kill = {"at": source.randint(1, max(twin.num_events, 1))}
        return bench.podium.start(root, words, kill=kill).wait().code == -9
    moment = source.random() * twin.seconds
    command = bench.podium.start(root, words)
    if not command.has_ended.wait(moment):
        command.kill()
    return command.wait().code == -9


# -- trainings -------------------------------------------------------------------------------------------------------


def train_twin(bench: Bench, family: str) -> Twin:
    def make(folder: Path) -> Twin:
        root = bench.copy(bench.template, folder)
        outcome = expect(bench.train(root, FAMILIES[family]))
        return Twin(root, outcome, read_mlflow(root / "mlflow.db") if "MLflow" in family else None)

    return bench.once(f"twin {family}", make)


def go_on(bench: Bench, root: Path, words: Sequence[str], kill: Callable[[Sequence[str]], bool]) -> Path:
    """Resume the one run that a kill left, or begin anew where it left none; the run. `kill` may kill that again."""
    for _ in range(2):
        runs = find_runs(root)
        following = ["resume", "--run", str(runs[0])] if runs else ["train", *words]
        if not kill(following):
            break
    runs = find_runs(root)
    following = ["resume", "--run", str(runs[0])] if runs else ["train", *words]
    line = refusal(bench.podium.run(root, *following))
    if line and "finished already" not in line:
        raise Wrong(f"refused: {' '.join(following)[:200]}: {line[:400]}")
    runs = find_runs(root)
    if len(runs) != 1:
        raise Wrong(f"runs: {len(runs)} instead of one")
    return runs[0]


def _training(family: str, by_file: bool, bench: Bench, source: random.Random) -> str:
    twin = train_twin(bench, family)
    (straight,) = find_runs(twin.root)
    with bench.workspace() as root:
        words = bench.words(FAMILIES[family])
        num_kills = int(killed(bench, root, ["train", *words], twin.outcome, by_file, source))
        again = source.random() < 0.5

        def kill(following: Sequence[str]) -> bool:
            nonlocal again, num_kills
            if not again:
                return False
            again = False
            is_killed = killed(bench, root, following, twin.outcome, not by_file, source)
            num_kills += is_killed
            return is_killed

        run = go_on(bench, root, words, kill)
        if wrong := differences(read_products(run), read_products(straight)):
            raise Wrong(f"other bytes: {wrong}")
        if read_record(run)["status"] != "finished":
            raise Wrong(f"status: {read_record(run)['status']}")
        if left := find_leftovers(root):
            raise Wrong(f"left behind: {', '.join(left)}")
        if twin.tracked is not None:
            compare_tracked(read_mlflow(root / "mlflow.db"), twin.tracked)
        if (straight / "tracking").is_dir():
            _compare_events(run, straight)
    return f"{num_kills} kill{'s' if num_kills != 1 else ''}"


def compare_tracked(found: Tracked, expected: Tracked) -> None:
    """Raise Wrong where a database has lost or doubled points against the twin's, or a run in it has not ended."""
    if found.num_double:
        raise Wrong(f"MLflow: {found.num_double} points are double")
    if lost := expected.keys() - found.keys():
        raise Wrong(f"MLflow: {sum(lost.values())} of {expected.keys().total()} points lost: {sorted(lost)[:3]}")
    status = sorted(set(found.status.values()))
    if status != ["FINISHED"]:
        raise Wrong(f"MLflow: runs are {', '.join(sorted(found.status.values()))}")


def _compare_events(run: Path, straight: Path) -> None:
    """The curves of a run that was tracked as JSON lines: none lost, none double."""
    found, expected = _values(run), _values(straight)
    if len(found) != len(set(found)):
        raise Wrong(f"JSON lines: {len(found) - len(set(found))} values are double")
    if lost := set(expected) - set(found):
        raise Wrong(f"JSON lines: {len(lost)} of {len(expected)} values lost: {sorted(lost)[:3]}")


def _values(run: Path) -> list[tuple[str, str, str]]:
    """Whose, at which step, under which key: of a machine's own figures nothing."""
    return [
        (path.parent.relative_to(run).as_posix(), str(line["step"]), key)
        for path in sorted((run / "tracking").rglob("metrics.jsonl"))
        for line in read_lines(path)
        for key in line["values"]
        if not key.startswith("system")
    ]


# -- other commands --------------------------------------------------------------------------------------------------


def make_finished(bench: Bench, name: str, *trainings: Sequence[str]) -> Path:
    """A workspace with one finished run of each training."""

    def make(folder: Path) -> Path:
        root = bench.copy(bench.template, folder)
        for words in trainings:
            expect(bench.train(root, words))
            time.sleep(1)  # so that runs have an order by their names
        return root

    return bench.once(name, make)


def make_table_runs(bench: Bench) -> Path:
    """Four runs with different submissions, tracked by MLflow."""
    trainings = [(*TABLE, "tracking.name=mlflow", f"model.strength={strength}") for strength in (0.01, 0.1, 1, 10)]
    return make_finished(bench, "table runs", *trainings)


def text_finished(bench: Bench) -> Path:
    return make_finished(bench, "text", (*TEXT, "tracking.name=none"))


def run_twin(bench: Bench, name: str, source: Path, words: Sequence[str]) -> Twin:
    """A command on a copy of a workspace that nobody touches; `{run}` is the first run's id."""

    def make(folder: Path) -> Twin:
        root = bench.copy(source, folder)
        outcome = expect(bench.podium.run(root, *words))
        database = root / "mlflow.db"
        return Twin(root, outcome, read_mlflow(database) if database.is_file() else None)

    return bench.once(f"twin {name}", make)


def _measure_submit(bench: Bench, finished: Path, run: str) -> Outcome:
    with bench.original(finished) as root:
        return expect(bench.podium.run(root, "submit", "--run", run))


def _submit(by_file: bool, bench: Bench, source: random.Random) -> str:
    finished = make_table_runs(bench)
    run = source.choice(find_runs(finished)).name
    length = bench.once("length of a submit", lambda _: _measure_submit(bench, finished, run))
    with bench.original(finished) as root:
        is_killed = killed(bench, root, ["submit", "--run", run], length, by_file, source)
        others = [path.name for path in find_runs(root) if path.name != run]
        expect(bench.podium.run(root, "submit", "--run", others[0]))
        if wrong := find_disagreement(root):
            raise Wrong(f"disagreement: {wrong}")
        line = refusal(bench.podium.run(root, "submit", "--run", run))
        if wrong := find_disagreement(root):
            raise Wrong(f"disagreement: after the same submit again ({line[:100] or 'sent'}): {wrong}")
        if left := find_leftovers(root):
            raise Wrong(f"left behind: {', '.join(left)}")
        unsettled = root / "runs" / ".unsettled"
        if unsettled.is_dir() and list(unsettled.iterdir()):
            raise Wrong(f"left behind: {len(list(unsettled.iterdir()))} intents")
    return "1 kill" if is_killed else "0 kills"


def _prepare(by_file: bool, bench: Bench, source: random.Random) -> str:
    words = ["data", "prepare", PREPARED]

    def without_data(root: Path) -> Path:
        shutil.rmtree(root / "data")
        return root

    empty = bench.once("no data", lambda folder: without_data(bench.copy(bench.template, folder)))
    twin = run_twin(bench, "data prepare", empty, words)
    with bench.workspace(empty) as root:
        is_killed = killed(bench, root, words, twin.outcome, by_file, source)
        listed = expect(bench.podium.run(root, "data", "list")).out
        is_there = (root / "data").is_dir() and not differences(read_tree(root / "data"), read_tree(twin.root / "data"))
        line = next(line for line in listed.splitlines() if PREPARED in line)
        if "ready" in line and "not" not in line and not is_there and "prepare" not in line:
            raise Wrong(f"ready too early: {line.strip()}")
        expect(bench.podium.run(root, *words))
        if wrong := differences(read_tree(root / "data"), read_tree(twin.root / "data")):
            raise Wrong(f"other bytes: {wrong}")
        if left := find_leftovers(root):
            raise Wrong(f"left behind: {', '.join(left)}")
    return "1 kill" if is_killed else "0 kills"


def _build(by_file: bool, bench: Bench, source: random.Random) -> str:
    finished, words = text_finished(bench), ["kernel", "build", "tiny-kernel"]
    twin = run_twin(bench, "kernel build", finished, words)
    with bench.workspace(finished) as root:
        is_killed = killed(bench, root, words, twin.outcome, by_file, source)
        if (root / "build").is_dir():
            visible = read_tree(root / "build", r"(^|/)\.", "partial")
            parts = {name.split("/")[0] + "/" + name.split("/")[1] for name in visible if name.count("/") > 1}
            for part in parts:
                if wrong := differences(read_tree(root / "build" / part), read_tree(twin.root / "build" / part)):
                    raise Wrong(f"half-made: build/{part}: {wrong}")
        expect(bench.podium.run(root, *words))
        if wrong := differences(read_tree(root / "build"), read_tree(twin.root / "build")):
            raise Wrong(f"other bytes: {wrong}")
    return "1 kill" if is_killed else "0 kills"


def _import(by_file: bool, bench: Bench, source: random.Random) -> str:
    (run,) = find_runs(train_twin(bench, "mt5, JSON lines").root)
    words = ["runs", "import", str(run)]
    twin = run_twin(bench, "runs import", bench.template, words)
    assert twin.tracked is not None
    with bench.workspace() as root:
        is_killed = killed(bench, root, words, twin.outcome, by_file, source)
        expect(bench.podium.run(root, *words))
        kept = (r"run\.json$", r"\.lock$")
        if wrong := differences(read_tree(root / "runs", *kept), read_tree(twin.root / "runs", *kept)):
            raise Wrong(f"other bytes: {wrong}")
        compare_tracked(read_mlflow(root / "mlflow.db"), twin.tracked)
        if left := find_leftovers(root):
            raise Wrong(f"left behind: {', '.join(left)}")
    return "1 kill" if is_killed else "0 kills"


def _prune(by_file: bool, bench: Bench, source: random.Random) -> str:
    finished, words = text_finished(bench), ["runs", "prune"]
    twin = run_twin(bench, "runs prune", finished, words)
    with bench.workspace(finished) as root:
        (run,) = find_runs(root)
        before = (run / "submission.csv").read_bytes()
        is_killed = killed(bench, root, words, twin.outcome, by_file, source)
        for following in (["predict", "--run", str(run)], words, ["predict", "--run", str(run)]):
            expect(bench.podium.run(root, *following))
            if (run / "submission.csv").read_bytes() != before:
                raise Wrong("other bytes: submission.csv")
        if wrong := differences(read_tree(run, r"run\.json$"), read_tree(find_runs(twin.root)[0], r"run\.json$")):
            raise Wrong(f"other bytes: {wrong}")
        if left := find_leftovers(root):
            raise Wrong(f"left behind: {', '.join(left)}")
    return "1 kill" if is_killed else "0 kills"
