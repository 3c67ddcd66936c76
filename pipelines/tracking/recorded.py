"""A run as the JSON lines of `pipelines.tracking.jsonl` tell it, of this machine or of another one."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import names
from pipelines.errors import PodiumError
from pipelines.tracking.tracker import STATUSES

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
# Times and steps beyond it are no numbers for a database.
MAX_NUMBER = 2**53
Row = Mapping[str, Any]


@dataclass
class MetricRow:
    """One call of `log_metrics`."""

    time_ms: int
    step: int | None
    values: dict[str, float]


@dataclass
class RecordedRun:
    """One run as JSON lines tell it; `status` is None when it was killed before it could say how it ended."""

    name: str
    run_id: str
    competition: str | None = None
    status: str | None = None
    started_ms: int = 0
    ended_ms: int = 0
    params: dict[str, object] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[MetricRow] = field(default_factory=list)
    artifacts: list[tuple[Path, str]] = field(default_factory=list)
    data: list[tuple[str, str, Path]] = field(default_factory=list)
    children: dict[str, "RecordedRun"] = field(default_factory=dict)


def read_run(folder: Path, *, run_dir: Path | None = None) -> RecordedRun:
    """The run recorded in `folder` with its children. A torn last line, as `kill -9` may leave, is passed over.

    With `run_dir`, for a run that came from elsewhere, every artifact has to lie in that run directory.
    Raises PodiumError when `folder` holds no run, a line within a file is broken, or an artifact lies outside.
    """
    events = folder / EVENTS
    if not read_lines(events):
        raise PodiumError(f"{folder}: no recorded run (events.jsonl is missing or empty); expected a run's tracking/")
    run = RecordedRun(name="", run_id="", params=_read_json(folder / "params.json"))
    run.tags = {key: str(value) for key, value in _read_json(folder / "tags.json").items()}
    last_ms = _each(events, lambda row, number: _take_event(run, row, number, folder, run_dir))
    last_ms = max(last_ms, _each(folder / METRICS, lambda row, _: _take_metrics(run, row)))
    run.ended_ms = last_ms
    for inner in sorted(folder.iterdir()):
        if (inner / EVENTS).is_file():
            run.children[_child_name(inner, run_dir)] = read_run(inner, run_dir=run_dir)
    return run


def to_json(value: float) -> float | str:
    """JSON knows no NaN; `float` reads these words back."""
    return value if math.isfinite(value) else str(value)


def read_lines(path: Path) -> list[Any]:
    """The rows of a JSON lines file; what follows the last line break was torn. PodiumError for one that is no JSON."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise PodiumError(f"{path}, line {number}: not JSON ({error}); delete the line to read the rest") from error
    return rows


def _each(path: Path, take: Callable[[Row, int], int]) -> int:
    """Take every row of a file; the last time in it."""
    last_ms = 0
    for number, row in enumerate(read_lines(path), start=1):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"{names.shown(row)} is no object")
            last_ms = max(last_ms, take(row, number))
        except (ValueError, TypeError, OverflowError) as error:
            raise PodiumError(f"{path}, line {number}: {error}") from None
    return last_ms


def _take_event(run: RecordedRun, row: Row, number: int, folder: Path, run_dir: Path | None) -> int:
    event, time_ms = _text(row, "event"), _number(row, "time")
    if number == 1:
        run.name, run.run_id, run.started_ms = _text(row, "name"), _text(row, "run_id"), time_ms
        run.competition = _text(row, "competition") if row.get("competition") is not None else None
    if event == "artifact":
        run.artifacts.append(_artifact(row, folder, run_dir))
    elif event == "data":
        run.data.append((_text(row, "name"), _text(row, "digest"), Path(_text(row, "path"))))
    elif event in ("resumed", "finished"):
        run.status = row.get("status")  # resumed after its end, a run is open again
        if run.status not in (None, *STATUSES):
            raise ValueError(f"status: {names.shown(run.status)} is not known; needs one of {', '.join(STATUSES)}")
    return time_ms


def _take_metrics(run: RecordedRun, row: Row) -> int:
    time_ms = _number(row, "time")
    if not isinstance(row.get("values"), dict):
        raise ValueError(f"values: {names.shown(row.get('values'))} is no object")
    values = {key: float(value) for key, value in row["values"].items()}
    run.metrics.append(MetricRow(time_ms, None if row.get("step") is None else _number(row, "step"), values))
    return time_ms


def _artifact(row: Row, folder: Path, run_dir: Path | None) -> tuple[Path, str]:
    """Where the file lies here, and its folder among the tracker's artifacts."""
    path, inner = folder / _text(row, "path"), _text(row, "folder")
    if inner:
        _named("folder", lambda: names.place(inner))
    if run_dir is not None:
        _named("path", lambda: names.within(run_dir, path))
    return path, inner


def _child_name(folder: Path, run_dir: Path | None) -> str:
    try:
        if run_dir is not None:
            names.within(run_dir, folder)
        return names.name(folder.name)
    except ValueError as error:
        raise PodiumError(f"{folder.parent}: a nested run's folder: {error}") from None


def _named(key: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{key}: {names.shown(value)} is no text" if key in row else f"{key}: missing")
    return value


def _number(row: Row, key: str) -> int:
    value = row.get(key)
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise ValueError(
            f"{key}: {names.shown(value)} is no whole number of 0 or more" if key in row else f"{key}: missing"
        )
    return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise PodiumError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise PodiumError(f"{path}: holds no JSON object")
    return content
