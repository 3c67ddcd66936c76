"""What the matrix works on: the tests' checkout in miniature, small trainings of every family, and what runs leave."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
SUPPORT = HERE / "tests" / "support"
COMMON = ("training.num_threads=1",)
MAKE = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
from bert_references import save_small_bert
from miniature import write_miniatures
from pipelines.workspace import Workspace
root = Path(sys.argv[1])
write_miniatures(Workspace(root))
save_small_bert(root / "small_bert")
"""
HALF_MADE = r"\.partial\b|\.preparing-"
KERNEL = "title: Tiny kernel\nmode: predict\nexperiment: smoke/mt5_adafactor\ntime_limit_hours: 9\nmemory_gb: 30\n"
TEXT = (
    "smoke/mt5_adafactor", "folds.name=group", "folds.num_folds=2", "data.vocabulary=character", "training.num_steps=9",
    "training.eval_every_steps=4", "training.checkpoint_every_steps=3", "training.ema_decay=0.9", "model.dropout=0.1",
    "data.max_target_length=12", *COMMON,
)  # fmt: skip
# Beside the workspaces, so that configurations of all of them are equal
BERT = "model.checkpoint={template}/small_bert"
FAMILIES = {
    "mt5, 2 folds, EMA, dropout": (*TEXT, "tracking.name=none"),
    "mt5, JSON lines": (*TEXT, "tracking.name=jsonl"),
    "mt5, MLflow": (*TEXT, "tracking.name=mlflow"),
    "t5": ("smoke/t5_v1_1_adafactor", "tracking.name=none", "data.vocabulary=character", *COMMON),
    "bert": ("smoke/bert_headlines", "tracking.name=none", BERT, *COMMON),
    "bert, pairs": ("smoke/bert_pairs", "tracking.name=none", BERT, "training.checkpoint_every_steps=1", *COMMON),
    "xcit, mixup, erase": (
        "smoke/xcit_nano_fashion", "tracking.name=none", "data.erase=0.5", "data.mixup=0.4", "training.ema_decay=0.9",
        *COMMON,
    ),
    "linear, 5 folds, MLflow": ("bbc_headlines_linear", "tracking.name=mlflow", "folds.name=stratified"),
    "trees, JSON lines": (
        "bbc_headlines_linear", "tracking.name=jsonl", "model.estimator=boosting", "folds.name=stratified",
        "folds.num_folds=3",
    ),
    "pixels, SVM": ("fashion_svm", "tracking.name=none", "folds.name=stratified", "folds.num_folds=3"),
}  # fmt: skip
TABLE = ("bbc_headlines_linear", "folds.name=stratified", "folds.num_folds=2")
IMAGES = ("smoke/xcit_nano_fashion", "training.checkpoint_every_steps=2", "training.ema_decay=0.9", *COMMON)


def make_template(folder: Path, checkout: Path) -> Path:
    """A workspace with the experiments of the checkout that is tried, and the tests' miniature data."""
    folder.mkdir(parents=True)
    shutil.copytree(checkout / "experiments", folder / "experiments")
    shutil.copy(checkout / "constraints-kaggle.txt", folder)
    (folder / "kernels" / "tiny-kernel").mkdir(parents=True)
    (folder / "kernels" / "tiny-kernel" / "kernel.yaml").write_text(KERNEL)
    shutil.copy(checkout / "kernels" / "mt5-adafactor" / "notebook.md", folder / "kernels" / "tiny-kernel")
    program = MAKE.format(support=str(SUPPORT))
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, cwd=folder, capture_output=True)
    return folder


def read_tree(folder: Path, *leave_out: str) -> dict[str, bytes]:
    """Every file below a folder but for half-made ones, and those whose path one of the patterns finds."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [name for name in names if not any(re.search(pattern, name) for pattern in (HALF_MADE, *leave_out))]
    return {name: (folder / name).read_bytes() for name in kept}


def read_products(run: Path) -> dict[str, bytes]:
    """Every file that a run is for: weights, OOF, submission, scores, history and its newest resume points."""
    files = read_tree(run, r"^run\.json$", r"^uncommitted\.diff$", r"^figures/", r"/figures/", r"^tracking/")
    newest: dict[str, str] = {}
    for name in files:
        if found := re.match(r"(.*resume)/(step-\d+)/", name):
            newest[found[1]] = max(found[2], newest.get(found[1], ""))
    return {
        name: content
        for name, content in files.items()
        if not (found := re.match(r"(.*resume)/(step-\d+)/", name)) or newest[found[1]] == found[2]
    }


def find_runs(root: Path) -> list[Path]:
    return sorted(path.parent for path in (root / "runs").glob("*/*/run.json"))


def read_record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def find_leftovers(root: Path) -> list[str]:
    """Half-made folders and files that a command has begun and no later one has removed."""
    partial = [path for path in root.rglob("*") if re.search(HALF_MADE, path.name)]
    runs = [path for path in (root / "runs").glob("*/*") if path.is_dir() and not path.name.startswith(".")]
    return sorted(
        path.relative_to(root).as_posix() for path in {*partial, *(p for p in runs if not (p / "run.json").is_file())}
    )


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """The files that differ, in words; "" where none does."""
    names = sorted({*found, *expected})
    words = [
        f"{name} ({'missing' if name not in found else 'too many' if name not in expected else 'other bytes'})"
        for name in names
        if found.get(name) != expected.get(name)
    ]
    return ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")


@dataclass(frozen=True)
class Tracked:
    """An MLflow database: points of curves by run, key and step, and each run's status and tags."""

    points: Counter[tuple[str, str, int]]
    status: dict[str, str]
    tags: dict[str, dict[str, str]]

    @property
    def num_double(self) -> int:
        return sum(count - 1 for count in self.points.values())

    def keys(self, name: str | None = None) -> Counter[tuple[str, int]]:
        """Points without the run they belong to; of one run where it is named. What machines differ in is left out."""
        points = [
            (key, step) for (run, key, step) in self.points if name in (None, run) and not key.startswith("system")
        ]
        return Counter(points)


def read_mlflow(database: Path) -> Tracked:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    with connection:
        points = Counter(connection.execute("select run_uuid, key, step from metrics").fetchall())
        status = dict(connection.execute("select run_uuid, status from runs").fetchall())
        tags: dict[str, dict[str, str]] = {run: {} for run in status}
        for run, key, value in connection.execute("select run_uuid, key, value from tags"):
            tags[run][key] = value
    connection.close()
    return Tracked(points, status, tags)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def find_disagreement(root: Path) -> str:
    """Where board, runs, ledger and MLflow say different things of what was submitted; "" where they agree."""
    boards = sorted((root / "data" / "local_host").glob("*/leaderboard.jsonl"))
    board = sorted((line["run"], line["ref"], line["sha256"]) for path in boards for line in read_lines(path))
    runs = sorted(
        (path.parent.name, line["ref"], line["sha256"])
        for path in (root / "runs").glob("*/*/submissions.jsonl")
        for line in read_lines(path)
    )
    ledger = sorted(
        (record["run"], int(str(record["ref"]).rpartition(":")[2]), record["submission_sha256"])
        for record in _read_ledger(root / "ledger")
    )
    for name, found in (("the runs", runs), ("the ledger", ledger)):
        if found != board:
            return f"the board holds {_refs(board)}, {name} {_refs(found)}"
    if [ref for _, ref, _ in board] and sorted({ref for _, ref, _ in board}) != list(range(1, len(board) + 1)):
        return f"the board's refs are {_refs(board)}"
    return _find_untold(root, board)


def _read_ledger(folder: Path) -> list[dict[str, Any]]:
    """Its records: one file each, or in commits of before that the lines that begin one."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*/*@*.json")]
    return records + [line for line in read_lines(folder / "ledger.jsonl") if line["event"] == "submitted"]


def _find_untold(root: Path, board: list[tuple[str, int, str]]) -> str:
    last = {run: ref for run, ref, _ in sorted(board, key=lambda line: line[1])}
    for run in find_runs(root):
        tracking = read_record(run).get("tracking") or {}
        if tracking.get("backend") != "mlflow" or run.name not in last:
            continue
        told = read_mlflow(root / "mlflow.db").tags[tracking["run_id"]].get("submission.ref")
        if told != str(last[run.name]):
            return f"{run.name} was last submitted as {last[run.name]}, MLflow's run says {told}"
    return ""


def _refs(entries: list[tuple[str, int, str]]) -> str:
    return ", ".join(f"{ref} of {run[-4:]}" for run, ref, _ in entries) or "nothing"
