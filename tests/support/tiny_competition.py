"""A competition small enough to write its files inside a test, of any task, and run directories for it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import pipelines.competitions
from pipelines.competitions.competition import Competition, FoldDefaults
from pipelines.workspace import Workspace


def make_competition(**changes: Any) -> Competition:
    """A binary competition scored by AUC; `changes` replaces fields."""
    fields: dict[str, Any] = {
        "name": "tiny_task",
        "title": "Tiny task",
        "task": "binary",
        "kaggle_slug": "tiny-task",
        "host": "local",
        "id_column": "id",
        "input_columns": ("text",),
        "label_columns": ("label",),
        "metric": "auc",
        "extra_metrics": ("log_loss",),
        "folds": FoldDefaults(name="stratified", num_folds=5, valid_fraction=0.2),
        "daily_limit": 3,
    }
    return Competition(**(fields | changes))


def install_competition(monkeypatch: Any, folder: Path, **changes: Any) -> Competition:
    """Add a user's competition file to the folder that is the table, for the time of a test."""
    competition = make_competition(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    source = (
        "from tiny_competition import make_competition\n"
        "from pipelines.competitions.competition import FoldDefaults, ImagePlaces\n\n"
        f"COMPETITION = make_competition(**{changes!r})\n"
    )
    (folder / f"{competition.name}.py").write_text(source, encoding="utf-8")
    if str(folder) not in pipelines.competitions.__path__:
        monkeypatch.setattr(pipelines.competitions, "__path__", [*pipelines.competitions.__path__, str(folder)])
    module = f"pipelines.competitions.{competition.name}"
    monkeypatch.setitem(sys.modules, module, None)  # so that it is taken out again afterwards
    del sys.modules[module]
    return competition


def write_lines(path: Path, *lines: str) -> Path:
    """A text file from its lines, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_run(
    workspace: Workspace,
    run: str,
    *,
    experiment: str = "first_try",
    metrics: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    submission: tuple[str, ...] = (),
    **manifest: Any,
) -> Path:
    """A finished run as training leaves it, as far as finding, submitting and comparing read it."""
    folder = workspace.runs / experiment.replace("/", "-") / run
    record = {
        "run": run,
        "experiment": experiment,
        "competition": "tiny_task",
        "status": "finished",
        "tracking": {"backend": "none", "run_id": None, "uri": None},
        "started": f"{run[:4]}-{run[4:6]}-{run[6:8]}T10:00:00+00:00",
        "finished": f"{run[:4]}-{run[4:6]}-{run[6:8]}T11:00:00+00:00",
        "wall_seconds": 380.0,
        "peak_memory_bytes": 1_234_000_000,
    }
    write_lines(folder / "run.json", json.dumps(record | manifest))
    if metrics is not None:
        write_lines(folder / "metrics.json", json.dumps(dict(metrics)))
    write_lines(folder / "config.yaml", yaml.safe_dump(dict(config or {}), sort_keys=False))
    if submission:
        write_lines(folder / "submission.csv", *submission)
    return folder
