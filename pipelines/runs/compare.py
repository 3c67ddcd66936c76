"""`podium compare`: the runs of a competition side by side: scores, leaderboard, time, memory, and what differs."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console

from components.metrics.table import METRICS
from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.workspace import Workspace
from pipelines.runs.run import Run
from pipelines.runs.submission import read_submissions
from pipelines.errors import PodiumError
from pipelines.screen import Column, format_bytes, format_duration, format_score, print_table, say

# Said by other columns, or different in every run without changing what it does.
NOT_PARAMETERS = ("name", "description", "parent", "competition")
# These stay on a narrow screen before memory does; the others go first.
NUM_FIRST_PARAMETERS = 3


@dataclass(frozen=True)
class RunRow:
    """What the table says about one run. `score` is OOF's (or the mean over folds where there is none)."""

    run: Run
    score: float | None
    fold_scores: Sequence[float]
    public: Mapping[str, float]
    parameters: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        return self.run.record.wall_seconds

    @property
    def memory_bytes(self) -> float | None:
        return self.run.record.peak_memory_bytes

    @property
    def started(self) -> str:
        return (self.run.record.started or "")[:16].replace("T", " ")


def compare(
    workspace: Workspace,
    *,
    competition: str | None = None,
    experiment: str | None = None,
    sort: str | None = None,
    limit: int = 20,
    as_json: bool = False,
    console: Console | None = None,
) -> None:
    """Print a table per competition, of all its runs or of one experiment's; at most `limit` rows each.

    Smoke and overfit runs stand below the real ones, whatever the order, and none of their scores is the best. `sort`
    is score (default: best first), lb, time, memory, started, or a parameter's dotted key. `as_json` prints one JSON
    list with everything, also what found no room. Raises `PodiumError` when there are no such runs.
    """
    runs = _wanted(Run.list(workspace.runs, experiment), workspace, competition, experiment)
    tables = {}
    for name in sorted({run.competition for run in runs if not run.damage}):
        rules = load_competition(name)
        rows = [_row(run, rules) for run in runs if run.competition == name and not run.damage]
        tables[name] = (rules, _sorted(rows, rules, sort)[:limit], len(rows))
    damaged = [run for run in runs if run.damage]
    if as_json:
        say(_as_json(tables, damaged).removesuffix("\n"), console)
        return
    for rules, rows, num_rows in tables.values():
        _print_runs(console, rules, rows, num_rows)
    for run in runs:
        if run.damage or run.lost:
            say(f"damaged: {run.damage or run.lost}", console)


def _compared_parameters(rows: Sequence[RunRow]) -> list[str]:
    """The keys that differ among real runs; among all where there is no real one.

    What SMOKE=1 and OVERFIT=1 override would otherwise hide them on a narrow screen.
    """
    real = [row for row in rows if row.run.is_real]
    return differing_parameters([row.parameters for row in real or rows])


def differing_parameters(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys whose values differ among the runs; keys that every run has come first, then those of some runs only.

    The second kind are settings of an optimizer or a model that the other runs do not use.
    """
    keys = list(dict.fromkeys(key for parameters in rows for key in parameters if key not in NOT_PARAMETERS))
    differing = [key for key in keys if len({repr(parameters.get(key)) for parameters in rows}) > 1]
    return sorted(differing, key=lambda key: not all(key in parameters for parameters in rows))


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer": {"lr": 0.1}} -> {"optimizer.lr": 0.1}, as overrides and the tracker write it."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _wanted(
    runs: list[Run], workspace: Workspace, competition: str | None, experiment: str | None
) -> list[Run]:
    """A damaged run has lost the name of its competition and is listed whichever is asked for."""
    if competition is not None:
        name = _competition_name(competition, runs)
        runs = [run for run in runs if run.damage or run.competition == name]
    if not runs:
        what = f"experiment {experiment}: " if experiment else f"competition {competition}: " if competition else ""
        raise PodiumError(f"{what}no runs under {workspace.runs}; make one with: make experiment EXP=...")
    return runs


def _competition_name(name_or_slug: str, runs: Sequence[Run]) -> str:
    for name in sorted({run.competition for run in runs if not run.damage}):
        if name_or_slug == load_competition(name).kaggle_slug:
            return name
    return load_competition(name_or_slug).name


def _row(run: Run, rules: Competition) -> RunRow:
    metrics = run.metrics
    fold_keys = sorted(key for key in metrics if key.startswith("fold") and key.endswith(f"/{rules.metric}"))
    public: Mapping[str, float] = {}
    for submission in [] if run.damage else read_submissions(run.submissions_file):
        public = submission.public or public
    try:
        config = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        config = {}
    return RunRow(
        run=run,
        score=metrics.get(f"oof/{rules.metric}", metrics.get(f"cv/{rules.metric}")),
        fold_scores=[metrics[key] for key in fold_keys],
        public=public,
        parameters=flatten(config) if isinstance(config, Mapping) else {},
    )


def _sorted(rows: list[RunRow], rules: Competition, sort: str | None) -> list[RunRow]:
    """By the key; runs without it come last, and newer runs before older ones of the same. Real runs precede others."""
    ordered = _ordered(rows, rules, sort)
    return sorted(ordered, key=lambda row: not row.run.is_real)


def _ordered(rows: list[RunRow], rules: Competition, sort: str | None) -> list[RunRow]:
    newest_first = sorted(rows, key=lambda row: row.run.id, reverse=True)
    sign = -1.0 if METRICS[rules.metric].greater_is_better else 1.0
    keys: dict[str, Callable[[RunRow], float | None]] = {
        "score": lambda row: None if row.score is None else sign * row.score,
        "lb": lambda row: None if rules.metric not in row.public else sign * row.public[rules.metric],
        "time": lambda row: row.seconds,
        "memory": lambda row: row.memory_bytes,
    }
    name = sort or "score"
    if name == "started":
        return newest_first
    if name in keys:
        values: list[tuple[Any, RunRow]] = [(keys[name](row), row) for row in newest_first]
    elif any(name in row.parameters for row in rows):
        values = [(row.parameters.get(name), row) for row in newest_first]
        if not all(isinstance(value, int | float) or value is None for value, _ in values):
            values = [(None if value is None else str(value), row) for value, row in values]
    else:
        known = ", ".join([*keys, "started"])
        raise PodiumError(f"--sort {name}: no such column; choose one of {known}, or a parameter like optimizer.lr")
    present = sorted(((value, row) for value, row in values if value is not None), key=lambda pair: pair[0])
    return [row for _, row in present] + [row for value, row in values if value is None]


def _print_runs(console: Console | None, rules: Competition, rows: Sequence[RunRow], num_rows: int) -> None:
    direction = "higher" if METRICS[rules.metric].greater_is_better else "lower"
    title = f"{rules.name}: {rules.metric}, {direction} is better"
    say(title, console, style="bold")
    columns = [*_score_columns(rules, rows), *_cost_columns(rows)]
    columns += [*_parameter_columns(rows), *_extra_columns(rules, rows)]
    left_out = print_table(console, columns)
    if left_out:
        say(f"no room for {', '.join(left_out)}: widen the terminal, or --json", console, style="dim")
    if num_rows > len(rows):
        say(f"... {num_rows} runs in all: --limit {num_rows}", console)
    say("", console)


def _score_columns(rules: Competition, rows: Sequence[RunRow]) -> list[Column]:
    scores = [row.score for row in rows]
    public = [row.public.get(rules.metric) for row in rows]
    columns = [
        Column("run", [row.run.id for row in rows]),
        Column("experiment", [row.run.experiment for row in rows]),
    ]
    if not all(row.run.is_real for row in rows):
        columns.append(Column("mode", [row.run.mode for row in rows]))
    best = _best(rows, scores, rules.metric)
    columns.append(Column("OOF", list(map(format_score, scores)), is_number=True, best=best))
    if any(len(row.fold_scores) > 1 for row in rows):
        columns.append(Column("± folds", [_spread(row.fold_scores) for row in rows], is_number=True))
    best = _best(rows, public, rules.metric)
    columns.append(Column("LB", list(map(format_score, public)), is_number=True, best=best))
    return columns


def _cost_columns(rows: Sequence[RunRow]) -> list[Column]:
    statuses = [row.run.status for row in rows]
    return [
        Column("time", [format_duration(row.seconds) for row in rows], is_number=True),
        Column("memory", [format_bytes(row.memory_bytes) for row in rows], is_number=True, rank=2),
        # That all have finished is the usual case and may go unsaid.
        Column("status", statuses, rank=2 if set(statuses) == {"finished"} else 0),
    ]


def _parameter_columns(rows: Sequence[RunRow]) -> list[Column]:
    columns = []
    for number, key in enumerate(_compared_parameters(rows)):
        values = [row.parameters.get(key) for row in rows]
        is_number = all(isinstance(value, int | float | None) for value in values)
        rank = 1 if number < NUM_FIRST_PARAMETERS else 3
        columns.append(Column(key, list(map(_value, values)), is_number=is_number, rank=rank))
    return columns


def _extra_columns(rules: Competition, rows: Sequence[RunRow]) -> list[Column]:
    columns = []
    for metric in rules.extra_metrics:
        scores = [row.run.metrics.get(f"oof/{metric}") for row in rows]
        if any(score is not None for score in scores):
            cells, best = list(map(format_score, scores)), _best(rows, scores, metric)
            columns.append(Column(metric, cells, is_number=True, best=best, rank=4))
    return columns


def _best(rows: Sequence[RunRow], scores: Sequence[float | None], metric: str) -> list[int]:
    """The real runs that hold the best score; none where there is nothing to compare."""
    present = {
        index: score
        for index, (row, score) in enumerate(zip(rows, scores, strict=True))
        if row.run.is_real and score is not None
    }
    if len(present) < 2:
        return []
    best = max(present.values()) if METRICS[metric].greater_is_better else min(present.values())
    return [index for index, score in present.items() if score == best]


def _spread(scores: Sequence[float]) -> str:
    """The standard deviation over the folds: what a difference between two runs must exceed."""
    return f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_json(tables: Mapping[str, tuple[Competition, list[RunRow], int]], damaged: Sequence[Run]) -> str:
    items: list[dict[str, Any]] = []
    for rules, rows, _ in tables.values():
        keys = _compared_parameters(rows)
        for row in rows:
            run = row.run
            items.append(
                {
                    "run": run.id,
                    "experiment": run.experiment,
                    "mode": run.mode,
                    "competition": rules.name,
                    "metric": rules.metric,
                    "score": row.score,
                    "fold_scores": list(row.fold_scores),
                    "metrics": run.metrics,
                    "lb": dict(row.public),
                    "wall_seconds": row.seconds,
                    "peak_memory_bytes": row.memory_bytes,
                    "status": run.status,
                    "started": run.record.started,
                    "parameters_that_differ": {key: row.parameters.get(key) for key in keys},
                }
            )
    for run in damaged:
        items.append({"run": run.id, "experiment": run.experiment, "status": "damaged", "damage": run.damage})
    return json.dumps(items, indent=2, ensure_ascii=False) + "\n"
