"""Several commands at the same moment on one workspace: each succeeds or is refused in a line, and nothing is mixed."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
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
    read_lines,
    read_mlflow,
    read_products,
    read_tree,
)
from faults.kills import PREPARED, Twin, make_table_runs, run_twin, text_finished, train_twin
from faults.podium import Outcome

DAILY_LIMIT = 5
LONG = (*TEXT, "tracking.name=none", "training.num_steps=60", "training.checkpoint_every_steps=2")
TRACKED = (*TABLE, "tracking.name=mlflow")


def cases() -> Iterator[Case]:
    several: Sequence[tuple[str, int, Callable[[Bench, random.Random], str]]] = (
        ("two resumes of one run", 6, _two_resumes),
        ("resume while the training runs", 3, _resume_while_training),
        ("8 trainings, one MLflow database", 1, partial(_eight_trainings, True)),
        ("8 trainings, no MLflow database yet", 2, partial(_eight_trainings, False)),
        ("4 submits", 4, _four_submits),
        ("one submission left, 4 submits", 4, _last_submission),
        ("the same submit 4 times", 3, _same_submit),
        ("prunes during 3 trainings", 1, _prunes),
        ("4 prunes", 3, _four_prunes),
        ("3 data prepares", 2, _prepares),
        ("2 trainings that both make folds", 3, _two_trainings),
        ("3 kernel builds", 3, _builds),
        ("2 imports of one run", 3, _imports),
        ("4 predicts of one run", 3, _predicts),
    )
    for row, count, check in several:
        for number in range(count):
            yield Case("races", row, f"race {row} {number}", check)


def at_once(bench: Bench, root: Path, source: random.Random, *commands: Sequence[str]) -> list[Outcome]:
    """All of them within a few hundredths of a second, with how each ended."""
    started = []
    for words in commands:
        started.append(bench.podium.start(root, bench.words(words)))
        time.sleep(source.random() * 0.05)
    return [command.wait(300) for command in started]


def check_clean(root: Path) -> None:
    if left := find_leftovers(root):
        raise Wrong(f"left behind: {', '.join(left)}")


def check_equal(run: Path, straight: Path) -> None:
    if wrong := differences(read_products(run), read_products(straight)):
        raise Wrong(f"other bytes: {wrong}")


def _resumed(bench: Bench) -> Path:
    """The stopped run, resumed with nothing beside it."""

    def make(folder: Path) -> Path:
        root = bench.copy(make_stopped(bench), folder)
        expect(bench.podium.run(root, "resume", "--run", find_runs(root)[-1].name))
        return root

    return bench.once("resumed", make)


def _two_resumes(bench: Bench, source: random.Random) -> str:
    straight = find_runs(_resumed(bench))[-1]
    with bench.workspace(make_stopped(bench)) as root:
        run = find_runs(root)[-1]
        lines = [refusal(outcome) for outcome in at_once(bench, root, source, *[["resume", "--run", run.name]] * 2)]
        if lines.count("") != 1:
            raise Wrong(f"refused: {lines.count('')} of two resumes went on: {[line[:150] for line in lines]}")
        check_equal(run, straight)
        check_clean(root)
    return "one refused"


def _resume_while_training(bench: Bench, source: random.Random) -> str:
    def make(folder: Path) -> Path:
        root = bench.copy(bench.template, folder)
        expect(bench.train(root, LONG))
        return root

    (straight,) = find_runs(bench.once("long", make))
    with bench.workspace() as root:
        training = bench.podium.start(root, ["train", *LONG])
        while not list(root.glob("runs/*/*/fold*/resume/step-*")) and not training.has_ended.is_set():
            time.sleep(0.01)
        time.sleep(source.random())
        if not refusal(bench.podium.run(root, "resume", TEXT[0])):
            raise Wrong("not refused: resume went on beside the training")
        expect(training.wait(300))
        check_equal(find_runs(root)[-1], straight)
        check_clean(root)
    return "refused"


def _eight_trainings(is_database_there: bool, bench: Bench, source: random.Random) -> str:
    alone = train_twin(bench, "linear, 5 folds, MLflow")
    assert alone.tracked is not None
    words = ["train", "bbc_headlines_linear", "tracking.name=mlflow", "folds.name=stratified"]
    with bench.workspace() as root:
        if not is_database_there:
            (root / "mlflow.db").unlink()
        for outcome in at_once(bench, root, source, *[words] * 8):
            expect(outcome)
        tracked, runs = read_mlflow(root / "mlflow.db"), find_runs(root)
        if len(runs) != 8 or tracked.num_double:
            raise Wrong(f"MLflow: {len(runs)} runs, {tracked.num_double} points double")
        if set(tracked.status.values()) != {"FINISHED"} or len(tracked.status) != 8 * len(alone.tracked.status):
            raise Wrong(f"MLflow: {len(tracked.status)} runs, {sorted(set(tracked.status.values()))}")
        expected = 8 * sum(not key.startswith("system") for _, key, _ in alone.tracked.points)
        found = sum(not key.startswith("system") for _, key, _ in tracked.points)
        if found != expected:
            raise Wrong(f"MLflow: {found} of {expected} points")
        for run in runs:
            check_equal(run, find_runs(alone.root)[0])
        check_clean(root)
    return "all recorded"


def _four_submits(bench: Bench, source: random.Random) -> str:
    with bench.original(make_table_runs(bench)) as root:
        commands = [["submit", "--run", run.name] for run in find_runs(root)]
        for outcome in at_once(bench, root, source, *commands):
            expect(outcome)
        return _agreed(root, 4)


def _agreed(root: Path, num_expected: int) -> str:
    if wrong := find_disagreement(root):
        raise Wrong(f"disagreement: {wrong}")
    boards = (root / "data" / "local_host").glob("*/leaderboard.jsonl")
    num_lines = sum(len(read_lines(path)) for path in boards)
    if num_lines != num_expected:
        raise Wrong(f"board: {num_lines} submissions instead of {num_expected}")
    check_clean(root)
    return "agree"


def _last_submission(bench: Bench, source: random.Random) -> str:
    with bench.original(make_table_runs(bench)) as root:
        runs = [run.name for run in find_runs(root)]
        for _ in range(DAILY_LIMIT - 1):
            expect(bench.podium.run(root, "submit", "--run", runs[0], "--again"))
        outcomes = at_once(bench, root, source, *[["submit", "--run", run, "--again"] for run in runs])
        lines = [refusal(outcome) for outcome in outcomes]
        if lines.count("") != 1:
            raise Wrong(f"limit: {lines.count('')} of 4 were taken")
        return _agreed(root, DAILY_LIMIT)


def _same_submit(bench: Bench, source: random.Random) -> str:
    with bench.original(make_table_runs(bench)) as root:
        outcomes = at_once(bench, root, source, *[["submit", "--run", find_runs(root)[0].name]] * 4)
        for outcome in outcomes:
            refusal(outcome)
        return _agreed(root, 1)


def _prunes(bench: Bench, source: random.Random) -> str:
    twin = train_twin(bench, "mt5, 2 folds, EMA, dropout")
    with bench.workspace() as root:
        words = ["train", *TEXT, "tracking.name=none"]
        trainings = [bench.podium.start(root, words) for _ in range(3)]
        num_prunes = 0
        while not all(training.has_ended.is_set() for training in trainings):
            expect(bench.podium.run(root, "runs", "prune"))
            num_prunes += 1
        for training in trainings:
            expect(training.wait(300))
        expect(bench.podium.run(root, "runs", "prune"))
        straight = _without_points(find_runs(twin.root)[0])
        for run in find_runs(root):
            if wrong := differences(_without_points(run), straight):
                raise Wrong(f"other bytes: {wrong}")
        check_clean(root)
    return f"{num_prunes} prunes"


def _without_points(run: Path) -> dict[str, bytes]:
    return {name: content for name, content in read_products(run).items() if "/resume/" not in name}


def _four_prunes(bench: Bench, source: random.Random) -> str:
    finished = text_finished(bench)
    twin = run_twin(bench, "runs prune", finished, ["runs", "prune"])
    with bench.workspace(finished) as root:
        return _all_equal(root, twin, "runs", at_once(bench, root, source, *[["runs", "prune"]] * 4))


def _all_equal(root: Path, twin: Twin, folder: str, outcomes: Sequence[Outcome]) -> str:
    for outcome in outcomes:
        expect(outcome)
    kept = (r"run\.json$", r"\.lock$")
    if wrong := differences(read_tree(root / folder, *kept), read_tree(twin.root / folder, *kept)):
        raise Wrong(f"other bytes: {wrong}")
    check_clean(root)
    return "identical"


def _prepares(bench: Bench, source: random.Random) -> str:
    words = ["data", "prepare", PREPARED, "--force"]
    twin = run_twin(bench, "data prepare by force", bench.template, words)
    with bench.workspace() as root:
        return _all_equal(root, twin, "data", at_once(bench, root, source, *[words] * 3))


def _two_trainings(bench: Bench, source: random.Random) -> str:
    (straight,) = find_runs(train_twin(bench, "mt5, 2 folds, EMA, dropout").root)
    with bench.workspace() as root:
        for outcome in at_once(bench, root, source, *[["train", *TEXT, "tracking.name=none"]] * 2):
            expect(outcome)
        for run in find_runs(root):
            check_equal(run, straight)
        check_clean(root)
    return "identical"


def _builds(bench: Bench, source: random.Random) -> str:
    words, finished = ["kernel", "build", "tiny-kernel"], text_finished(bench)
    twin = run_twin(bench, "kernel build", finished, words)
    with bench.workspace(finished) as root:
        outcomes = at_once(bench, root, source, *[words] * 3)
        if all(refusal(outcome) for outcome in outcomes):
            raise Wrong(f"refused: all of them: {outcomes[0].line[:200]}")
        if wrong := differences(read_tree(root / "build"), read_tree(twin.root / "build")):
            raise Wrong(f"other bytes: {wrong}")
        check_clean(root)
    return "identical"


def _imports(bench: Bench, source: random.Random) -> str:
    (run,) = find_runs(train_twin(bench, "mt5, JSON lines").root)
    words = ["runs", "import", str(run)]
    twin = run_twin(bench, "runs import", bench.template, words)
    assert twin.tracked is not None
    with bench.workspace() as root:
        outcomes = at_once(bench, root, source, words, words)
        if all(refusal(outcome) for outcome in outcomes):
            raise Wrong(f"refused: both: {outcomes[0].line[:200]}")
        tracked = read_mlflow(root / "mlflow.db")
        is_once = tracked.keys() == twin.tracked.keys() and len(tracked.status) == len(twin.tracked.status)
        if tracked.num_double or not is_once:
            raise Wrong(f"MLflow: {len(tracked.status)} runs, {tracked.num_double} points double")
        check_clean(root)
    return "once"


def _predicts(bench: Bench, source: random.Random) -> str:
    with bench.workspace(text_finished(bench)) as root:
        (run,) = find_runs(root)
        before = (run / "submission.csv").read_bytes()
        outcomes = at_once(bench, root, source, *[["predict", "--run", run.name]] * 4)
        if all(refusal(outcome) for outcome in outcomes):
            raise Wrong(f"refused: all of them: {outcomes[0].line[:200]}")
        if (run / "submission.csv").read_bytes() != before:
            raise Wrong("other bytes: submission.csv")
        check_clean(root)
    return "identical"
