"""A run directory that others wrote, held to be one before anything in it is copied, followed or sent."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.files.atomic import PARTIAL
from components.files.digests import read_object
from pipelines import names
from pipelines.runs.submission import read_submissions
from pipelines.tracking.recorded import read_run
from pipelines.errors import PodiumError
from pipelines.runs.record import RUN_JSON, RunRecord


def read_foreign_run(source: Path, tracking: str) -> RunRecord:
    """The record of a run directory in which every name and path has been looked at; nothing is written.

    Raises PodiumError naming the file and the entry: a link, pipe or device in the folder, a name in run.json that
    leads elsewhere, a checkpoint or an artifact outside the folder, a line of the `tracking` folder that cannot be.
    """
    try:
        names.plain_tree(source)
        _check_record(source / RUN_JSON, _read_object(source / RUN_JSON))
        record = RunRecord.read(source / RUN_JSON)
        for result in sorted(source.glob("*/result.json")):
            content = {"checkpoint": "none"} | _read_object(result)  # one without weights names none
            _check(result, content, "checkpoint", names.place)
        # What was submitted elsewhere comes along; its words would go into the ledger with the next score.
        read_submissions(source / "submissions.jsonl")
        _check_depth(source / tracking, read_run(source / tracking, run_dir=source).params)
    except (ValueError, PodiumError) as error:
        raise PodiumError(names.one_line(str(error))) from None
    except OSError as error:
        line = f"{error.filename}: cannot be read ({error.strerror}); make the whole run readable"
        raise PodiumError(names.one_line(line)) from None
    return record


def _check_record(path: Path, record: Mapping[str, Any]) -> None:
    _check(path, record, "run", _run)
    _check(path, record, "experiment", names.experiment)
    tracking = record.get("tracking")
    if not isinstance(tracking, dict):
        raise ValueError(f"{path}: tracking: {tracking!r} is no object; needs one with backend, run_id and uri")
    if record.get("commit") is not None:
        _check(path, record, "commit", names.commit)


def _check(path: Path, content: Mapping[str, Any], key: str, check: Callable[[object], object]) -> None:
    if key not in content:
        raise ValueError(f"{path}: {key}: missing; needs a run as podium writes it")
    try:
        check(content[key])
    except ValueError as error:
        raise ValueError(f"{path}: {key}: {error}") from None


def _run(value: object) -> None:
    # While a folder is written it has this ending, and is removed when the writing begins anew.
    if names.name(value).endswith(PARTIAL):
        raise ValueError(f"{value!r} ends with {PARTIAL}, which is no name of a run")


def _read_object(path: Path) -> dict[str, Any]:
    content = read_object(path)
    _check_depth(path, content)
    return content


def _check_depth(path: Path, content: object) -> None:
    """What was read can be written again and be looked through for secrets, whatever the stack allows by then."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > names.MAX_DEPTH:
            raise ValueError(f"{path}: an entry is nested too deep; needs {names.MAX_DEPTH} levels or fewer")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(part, depth + 1) for part in inner]
