"""A damaged file, then a command: one clear line that names the file, or the very result of the undamaged workspace.

The result of a command is what it leaves (a submission, a run, a board, a built kernel) or, where it only shows, what
it prints. Another result without a word about the file is the worst end.
"""

import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults.cases import Bench, Case, Wrong, expect, refusal
from faults.inputs import IMAGES, TABLE, TEXT, differences, find_runs, read_lines, read_products, read_tree
from faults.kills import make_finished
from faults.podium import Outcome

Result = Mapping[str, bytes]
# Where the text run is interrupted: a resume point is behind it in its second fold.
STOP = {"pattern": r"fold1/resume/.*step-0*9", "at": 1}
FLIPS = ("bit", "another bit")
ANY = ("bit", "cut", "delete", "swap")
WEIGHTS = ("exponent", "another exponent", "bit", "cut", "delete", "swap")
LINES = ("bit", "digit", "cut", "delete")


def flip_bit(path: Path, source: random.Random) -> None:
    _change(path, source.randrange(path.stat().st_size), 1 << source.randrange(8))


def flip_exponent(path: Path, source: random.Random) -> None:
    """The sign or a high bit of the exponent of a little-endian float near the file's end, past any header."""
    size = path.stat().st_size
    _change(path, size - 1 - 4 * source.randrange(max(1, size // 16)), 1 << source.randrange(5, 8))


def change_digit(path: Path, source: random.Random) -> None:
    """A digit becomes its neighbour, which every parser takes."""
    content = path.read_bytes()
    digits = [place for place, byte in enumerate(content) if 0x30 <= byte <= 0x37]
    _change(path, source.choice(digits), 1) if digits else flip_bit(path, source)


def cut(path: Path, source: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])


def delete(path: Path, source: random.Random) -> None:
    path.unlink()


DAMAGES: Mapping[str, Callable[[Path, random.Random], None]] = {
    "bit": flip_bit,
    "another bit": flip_bit,
    "exponent": flip_exponent,
    "another exponent": flip_exponent,
    "digit": change_digit,
    "cut": cut,
    "delete": delete,
}


def _change(path: Path, place: int, bits: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


# -- workspaces ------------------------------------------------------------------------------------------------------


def make_whole(bench: Bench) -> Path:
    """Two finished runs of text and two of a table, the newer ones submitted, and a kernel built."""

    def make(folder: Path) -> Path:
        trainings = [
            (*words, "tracking.name=jsonl", f"seed={seed}") for words in (TEXT, TABLE, IMAGES) for seed in (5, 0)
        ]
        root = bench.copy(make_finished(bench, "whole", *trainings), folder)
        for run in _newest(root):
            expect(bench.podium.run(root, "submit", "--run", run.name))
        return root

    return bench.once("whole, submitted", make)


def make_stopped(bench: Bench) -> Path:
    """A run of text that was killed in its second fold, beside one that is finished."""

    def make(folder: Path) -> Path:
        root = bench.copy(make_finished(bench, "text, seed 5", (*TEXT, "tracking.name=jsonl", "seed=5")), folder)
        words = ["train", *TEXT, "tracking.name=jsonl"]
        killed = bench.podium.start(root, words, kill=STOP).wait()
        assert killed.code == -9, killed
        assert list(find_runs(root)[-1].glob("fold1/resume/step-*/model.safetensors"))
        return root

    return bench.once("stopped", make)


def _newest(root: Path) -> list[Path]:
    return sorted({run.parent: run for run in find_runs(root)}.values())


# -- commands and their results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """A command on a run, and what it results in; `{run}` becomes its id."""

    words: tuple[str, ...]
    result: Callable[[Path, Path, Outcome], Result]
    make: Callable[[Bench], Path] = make_whole


def _printed(root: Path, run: Path, outcome: Outcome) -> Result:
    """What it says, but for paths and for how old, long and large things are."""
    text = re.sub(r"\d+(\.\d+)? ?(s|min|kB|MB|GB|B)\b", "", outcome.out.replace(str(root), ""))
    return {"stdout": re.sub(r"\s+", " ", text).encode()}


def _submission(root: Path, run: Path, outcome: Outcome) -> Result:
    return {"submission.csv": (run / "submission.csv").read_bytes()}


def _entered(root: Path, run: Path, outcome: Outcome) -> Result:
    """What the board says of the submission that was just made."""
    boards = (root / "data" / "local_host").glob("*/leaderboard.jsonl")
    lines = [line for path in boards for line in read_lines(path) if line["run"] == run.name]
    return {"board": str([lines[-1][key] for key in ("ref", "run", "sha256", "public", "private")]).encode()}


def _run(root: Path, run: Path, outcome: Outcome) -> Result:
    return read_products(run)


def _new_run(root: Path, run: Path, outcome: Outcome) -> Result:
    return read_products(_newest_of(root, run))


def _newest_of(root: Path, run: Path) -> Path:
    return max(path for path in find_runs(root) if path.parent == run.parent)


def _build(root: Path, run: Path, outcome: Outcome) -> Result:
    return read_tree(root / "build")


VERBS = {
    "predict": Verb(("predict", "--run", "{run}"), _submission),
    "submit": Verb(("submit", "--run", "{run}", "--again"), _entered),
    "resume": Verb(("resume", "--run", "{run}"), _run, make_stopped),
    "train": Verb(("train", *TEXT, "tracking.name=none"), _new_run),
    "compare": Verb(("compare", "--competition", "place_names"), _printed),
    "runs list": Verb(("runs", "list"), _printed),
    "ledger": Verb(("ledger", "local:place_names:1"), _printed),
    "kernel build": Verb(("kernel", "build", "tiny-kernel", "--run", "{run}"), _build),
}

# -- cases -----------------------------------------------------------------------------------------------------------

# For each command the files, as patterns below the run or (with a slash before them) below the workspace.
RUN_FILES = (
    "config.yaml", "run.json", "fold0/result.json", "vocabulary/*.model", "fold1/checkpoints/*/config.json",
    "fold1/checkpoints/*/digests.json",
)  # fmt: skip
TEXT_FILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "predict": {
        "fold0/checkpoints/*/model.safetensors": (*WEIGHTS, "another bit"),
        **dict.fromkeys(RUN_FILES, ANY),
        **dict.fromkeys(("metrics.json", "folds.csv"), ("bit", "delete")),
    },
    "submit": {
        "submission.csv": (*LINES, "swap"),
        "fold1/checkpoints/*/model.safetensors": ("exponent", "swap"),
        **dict.fromkeys(("run.json", "config.yaml", "metrics.json", "submissions.jsonl"), LINES),
        "/data/local_host/place-names/leaderboard.jsonl": LINES,
        "/data/local_host/place-names/solution.csv": (*LINES, "another bit"),
        "/data/local_host/place-names/baselines.json": ("bit", "digit", "cut"),
        "/ledger/**/*.json*": LINES,
    },
    "resume": {
        "fold1/resume/*/model.safetensors": WEIGHTS,
        "fold1/resume/*/optimizer.safetensors": WEIGHTS[:5],
        "fold1/resume/*/ema.safetensors": WEIGHTS[:5],
        "fold1/resume/*/random*": ("bit", "cut", "delete"),
        "fold1/resume/*/state.json": ("bit", "digit", "cut", "delete"),
        "fold1/resume/*/history.jsonl": ("digit", "cut", "delete"),
        "fold1/history.jsonl": ("digit", "cut", "delete"),
        "fold0/checkpoints/*/model.safetensors": ("exponent", "delete", "swap"),
        "fold0/oof.parquet": ANY,
        "fold0/history.jsonl": ("digit", "cut"),
        **dict.fromkeys(("config.yaml", "run.json", "folds.csv", "fold0/result.json", "vocabulary/*.model"), ANY),
    },
    "train": {
        "/data/place-names/train.csv": ("bit", "digit", "cut", "delete"),
        "/data/place-names/test.csv": ("bit", "cut", "delete"),
        "/data/place-names/sample_submission.csv": ("bit", "cut", "delete"),
        "/data/place-names/SHA256SUMS": ("bit", "cut", "delete"),
        "/data/place-names/folds/*.csv": ("bit", "digit", "cut", "delete"),
        "/experiments/smoke/mt5_adafactor.yaml": ("cut", "delete"),
    },
    "compare": dict.fromkeys(("run.json", "metrics.json", "config.yaml", "submissions.jsonl"), LINES),
    "runs list": dict.fromkeys(("run.json", "metrics.json"), LINES),
    "ledger": {"/ledger/**/*.json*": (*LINES, "another bit")},
    "kernel build": {
        "fold1/checkpoints/*/model.safetensors": ("exponent", "cut", "delete", "swap"),
        **dict.fromkeys(RUN_FILES[:4], ("bit", "cut", "delete")),
        "/kernels/tiny-kernel/kernel.yaml": ("cut", "delete"),
    },
}  # fmt: skip
OTHER_FILES = {
    "bbc_headlines_linear": {
        "predict": {"fold*/checkpoints/*/*": ("bit", "another bit", "cut", "delete", "swap"), "run.json": LINES},
        "submit": {"submission.csv": (*LINES, "swap"), "/data/local_host/bbc-headlines/solution.csv": LINES},
    },
    "smoke_xcit_nano_fashion": {
        "predict": {
            "fold0/checkpoints/*/model.safetensors": WEIGHTS,
            "/data/fashion-mnist/test_images.npy": ("bit", "cut", "delete"),
        }
    },
}


def cases() -> Iterator[Case]:
    for folder, verbs in {"smoke_mt5_adafactor": TEXT_FILES, **OTHER_FILES}.items():
        for verb, files in verbs.items():
            for pattern, damages in files.items():
                for damage in damages:
                    name = f"damage {verb} {folder} {pattern} {damage}"
                    check = partial(_damaged, folder, verb, pattern, damage)
                    yield Case("damages", verb, name, check)


def expected_result(bench: Bench, folder: str, verb: str) -> Result:
    """What the command results in where nothing is damaged."""

    def make(_: Path) -> Result:
        source = VERBS[verb].make(bench)
        with bench.workspace(source) as root:
            run = _newest_of(root, root / "runs" / folder / "x")
            outcome = expect(bench.podium.run(root, *_words(verb, run)))
            return VERBS[verb].result(root, run, outcome)

    return bench.once(f"result {verb} {folder}", make)


def _words(verb: str, run: Path) -> list[str]:
    return [word.replace("{run}", run.name) for word in VERBS[verb].words]


def _damaged(folder: str, verb: str, pattern: str, damage: str, bench: Bench, source: random.Random) -> str:
    expected = expected_result(bench, folder, verb)
    with bench.workspace(VERBS[verb].make(bench)) as root:
        run = _newest_of(root, root / "runs" / folder / "x")
        below = root if pattern.startswith("/") else run
        path = source.choice(sorted(below.glob(pattern.lstrip("/"))))
        if damage == "swap":
            (other,) = [other for other in run.parent.iterdir() if other.is_dir() and other != run]
            path, _ = _swap(path, run, other)
        else:
            DAMAGES[damage](path, source)
        return judge(root, run, verb, path, bench.podium.run(root, *_words(verb, run)), expected)


def _swap(path: Path, run: Path, other: Path) -> tuple[Path, bytes]:
    """Put the same file of another run in its place; steps of checkpoints may differ."""
    pattern = re.sub(r"step-\d+", "step-*", path.relative_to(run).as_posix())
    found = sorted(other.glob(pattern)) or sorted(other.glob(pattern.replace("resume", "checkpoints")))
    before = path.read_bytes()
    shutil.copy(found[-1], path)
    return path, before


def judge(root: Path, run: Path, verb: str, path: Path, outcome: Outcome, expected: Result) -> str:
    """How a command took a damaged file. Raises Wrong for another result in silence, and for what is no clear line."""
    line = refusal(outcome)
    is_named = path.name in outcome.err + outcome.out
    if line:
        if not is_named and not (path.parent.name in line or run.name in line):
            raise Wrong(f"names no file: {line[:300]}")
        return "clear line"
    found = VERBS[verb].result(root, run, outcome)
    if not (wrong := differences(dict(found), dict(expected))):
        return "harmless"
    if verb == "train" and path.exists() and "sha256" in outcome.out + outcome.err:
        return "prepared anew, and said"  # from the package, which holds more rows than the miniature
    # What only shows things may go on beside what it says of the file
    if VERBS[verb].result is _printed and "damaged" in outcome.out and (is_named or run.name in outcome.out):
        return "clear line"
    said = f"; it says {_about(outcome, path)}" if is_named else ""
    raise Wrong(f"silently another result: {wrong}{said}")


def _about(outcome: Outcome, path: Path) -> str:
    lines = [line for line in (outcome.out + outcome.err).splitlines() if path.name in line]
    return repr(" ".join(lines)[:200])
