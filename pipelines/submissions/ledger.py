"""The ledger: for each submission one record of all that went into it, only ever appended to.

`ledger/ledger.jsonl` holds JSON lines, `ledger/files/<sha256>` what is small and has to be there again: configuration,
results of the folds, uncommitted changes. The folder is meant to be committed: what git tracks survives `git clean`,
travels to every clone, and shows in its history whether a line was ever rewritten. No secret is written to it.

A line with "event": "submitted" begins a record; any later line with the same ref and run adds to it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.files.atomic import atomic_file
from components.files.digests import file_digest
from components.files.json_lines import append_line
from pipelines import names
from pipelines.errors import PodiumError
from pipelines.redaction import REMOVED, cleaned, find_secrets, without_secrets
from pipelines.runs.directory import RunDirectory
from pipelines.runs.index import RunRecord
from pipelines.runs.source_search import find_source
from pipelines.submissions.ledger_record import check_record
from pipelines.workspace import Workspace

Record = dict[str, Any]
SUBMITTED, CHANGED = "submitted", "changed"
# A file up to this size is kept beside the records; weights are found by their digests instead.
KEPT_BYTES = 100_000
# What a later line may add to a record, as the host reports it.
_STATE = ("status", "public", "private", "error", "place")


class Ledger:
    """The records of one checkout, safe against other processes that append at the same moment."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.jsonl"
        self._files = folder / "files"

    def lines(self) -> list[Record]:
        """Every line ever written, oldest first.

        Raises PodiumError naming one that is damaged, or has an entry that cannot be, as a name that leads elsewhere.
        What follows the last line break was torn by a crash and is no line.
        """
        if not self.path.is_file():
            return []
        lines = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], start=1):
            cure = f"`git checkout -- {self.path.parent.name}` brings the committed lines back"
            try:
                content = dict(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                raise PodiumError(f"{self.path}: line {number} is no record: {cure}") from None
            try:
                check_record(content)
            except ValueError as error:
                raise PodiumError(f"{self.path}: line {number}: {error}: {cure}") from None
            lines.append(content)
        return lines

    def records(self) -> list[Record]:
        """Each submission in its latest state, oldest first."""
        records: dict[tuple[str, str], Record] = {}
        for line in self.lines():
            key = (str(line.get("ref")), str(line.get("run")))
            addition = {name: value for name, value in line.items() if name not in ("event", "time")}
            if line.get("event") == SUBMITTED:
                records[key] = addition | {"time": line.get("time")}
            elif key in records:
                records[key] |= addition
        return list(records.values())

    def find(self, ref: str) -> Record:
        """The record of a ref (`local:place_names:3`, `kaggle:1234`), of `<ref>@<run>`, or of a run's id: its last.

        Raises PodiumError for one that is not there, and for a ref that two hosts of one name have given.
        """
        records = self.records()
        by_ref = [record for record in records if ref in (record["ref"], f"{record['ref']}@{record['run']}")]
        if len(by_ref) > 1:
            choices = ", ".join(f"{record['ref']}@{record['run']}" for record in by_ref)
            raise PodiumError(f"{ref}: {len(by_ref)} submissions bear this ref; write one of {choices}")
        found = by_ref or [record for record in records if record["run"] == ref]
        if not found:
            known = ", ".join(record["ref"] for record in records[-5:]) or "none: `make submit EXP=…` writes the first"
            raise PodiumError(f"{ref}: no submission in {self.path} has this ref; its last ones are {known}")
        return found[-1]

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line: whole, or not at all.

        Raises PodiumError for one that could not be read again, and OSError where the disk does not take it.
        """
        try:
            check_record(line)
        except ValueError as error:
            raise PodiumError(f"{self.path}: {error}") from None
        append_line(self.path, without_secrets(json.dumps(cleaned(line), ensure_ascii=False)))

    def keep(self, content: bytes) -> str:
        """Store a small file under its sha256, which is returned; one with a secret in it is not stored."""
        digest = hashlib.sha256(content).hexdigest()
        if not find_secrets(content.decode("utf-8", errors="replace")):
            self._store(digest, content)
        return digest

    def kept(self, digest: str) -> Path | None:
        """The stored file of this sha256. Raises PodiumError where its bytes are others by now."""
        path = self._place(digest)
        if not path.is_file():
            return None
        if file_digest(path) != digest:
            cure = f"`git checkout -- {self.path.parent.name}` brings the committed file back"
            raise PodiumError(f"{path}: was changed, its bytes are not those of its name: {cure}")
        return path

    def _place(self, digest: str) -> Path:
        return self._files / names.digest(digest)

    def _store(self, digest: str, content: bytes) -> None:
        path = self._place(digest)
        if not path.is_file() or file_digest(path) != digest:
            with atomic_file(path) as partial:
                partial.write_bytes(content)


def enter_submission(
    workspace: Workspace, run: RunRecord, entry: Mapping[str, Any], *, kernel: Mapping[str, object] | None = None
) -> Record:
    """Write what an entry of a run's submissions.jsonl says: a new record, or a change to one; return the record.

    Called again with the same state nothing is written. `kernel` is `describe_kernel`'s answer where a kernel's output
    was submitted.
    """
    ledger = Ledger(workspace.ledger)
    ref = ref_of(entry)
    former = next((r for r in ledger.records() if (r["ref"], r["run"]) == (ref, run.run)), None)
    if former is None or former["submission_sha256"] != entry["sha256"]:
        whole = _complete_kernel(workspace, ledger, run, kernel) if kernel else None
        ledger.append(_describe(ledger, run, entry, whole) | _state_of(entry))
    elif changed := _changes(former, entry):
        ledger.append({"event": CHANGED, "time": entry["time"], "ref": ref, "run": run.run, **changed})
    return ledger.find(f"{ref}@{run.run}")


def is_entered(record: Record | None, entry: Mapping[str, Any]) -> bool:
    """Whether the ledger's record of a submission says all that the run's own entry says."""
    return record is not None and record["submission_sha256"] == entry["sha256"] and not _changes(record, entry)


def _state_of(entry: Mapping[str, Any]) -> Record:
    return {name: entry[name] for name in _STATE if entry.get(name) not in (None, "", {})}


def _changes(record: Mapping[str, Any], entry: Mapping[str, Any]) -> Record:
    """What an entry adds to a record, compared as it is written: without secrets, and nan equal to nan."""
    state = json.loads(without_secrets(json.dumps(cleaned(_state_of(entry)))))
    return {name: value for name, value in state.items() if json.dumps(record.get(name)) != json.dumps(value)}


@dataclass(frozen=True)
class Difference:
    """A line of a record that is otherwise here: `data_sha256.test.csv: recorded 86e1, here 5c2a (/data/test.csv)`."""

    line: str
    recorded: object
    here: object
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.line}: recorded {_short(self.recorded)}, here {_short(self.here)}{place}"


def differences(line: str, recorded: Mapping[str, object], here: Mapping[str, object]) -> list[Difference]:
    """What differs between a mapping of a record and the same one here, in the record's order."""
    return [
        Difference(f"{line}.{key}", value, here.get(key)) for key, value in recorded.items() if here.get(key) != value
    ]


def _short(value: object) -> str:
    """A digest by its beginning, and nothing by its name."""
    if value is None or value == "":
        return "none"
    text = str(value)
    return text[:16] if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else text


def ref_of(entry: Mapping[str, Any]) -> str:
    """`kaggle:1234`; the local host counts for each competition, hence `local:place_names:12`."""
    place = "" if entry["host"] == "kaggle" else f"{entry['competition']}:"
    return f"{entry['host']}:{place}{entry['ref']}"


def describe_kernel(
    manifest: Path, *, version: int, dataset_versions: Mapping[str, int] | None = None, docker_image: str | None = None
) -> Record:
    """What the record says of a pushed kernel; `manifest` is MANIFEST.json of its build folder."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PodiumError(f"{manifest}: cannot be read ({error}); build the kernel again") from None
    return {
        "kernel": content["kernel"],
        "version": version,
        "mode": content.get("mode"),
        "built_with": content.get("built_with"),
        "source_sha256": content.get("source_sha256"),
        "bundle_sha256": content["bundle_sha256"],
        "files": content.get("files", {}),
        "datasets": content.get("datasets", []),
        "dataset_versions": dict(dataset_versions or {}),
        "docker_image": docker_image,
    }


def ledger_tags(record: Record) -> dict[str, str]:
    """What of a record stands on the tracker's run, to search by."""
    kernel = record.get("kernel") or {}
    tags = {
        "ledger.ref": record["ref"],
        "ledger.submission_sha256": record["submission_sha256"],
        "ledger.config_sha256": record["config_sha256"],
        "ledger.source_sha256": record["source_sha256"],
        "ledger.weights_sha256": ", ".join(sorted(record["weights_sha256"].values())),
    }
    if kernel:
        tags |= {
            "ledger.kernel": f"{kernel['kernel']}/{kernel['version']}",
            "ledger.bundle_sha256": str(kernel["bundle_sha256"]),
        }
    return tags


def _describe(ledger: Ledger, run: RunRecord, entry: Mapping[str, Any], kernel: Mapping[str, object] | None) -> Record:
    """The whole record, what decides first: `podium reproduce` names the first line that differs."""
    manifest, directory = run.manifest, RunDirectory(run.folder)
    files = {path.relative_to(run.folder).as_posix(): path for path in directory.prediction_files()}
    digests = {name: _keep_or_digest(ledger, path) for name, path in files.items()}
    weights = {name: digest for name, digest in digests.items() if "checkpoints" in Path(name).parts}
    return {
        "event": SUBMITTED,
        "time": entry["time"],
        "ref": ref_of(entry),
        "host": entry["host"],
        "competition": entry["competition"],
        "experiment": run.experiment,
        "run": run.run,
        "description": entry.get("description", ""),
        "command": manifest.get("command"),
        "mode": manifest.get("mode"),
        "commit": manifest.get("commit"),
        "diff": _keep_diff(ledger, directory.read_diff()) if directory.diff.is_file() else None,
        "source_sha256": manifest.get("source_sha256"),
        "data_sha256": manifest.get("data_sha256") or {},
        "folds_sha256": manifest.get("folds_sha256"),
        "config_sha256": digests.pop("config.yaml"),
        "files_sha256": {name: digest for name, digest in digests.items() if name not in weights},
        "weights_sha256": weights,
        "seed": manifest.get("seed"),
        "versions": manifest.get("versions") or {},
        "machine": manifest.get("machine") or {},
        "wall_seconds": manifest.get("wall_seconds"),
        "cv": {name: score for name, score in run.metrics.items() if name.startswith(("cv/", "oof/"))},
        "tracking": manifest.get("tracking"),
        "kernel": dict(kernel) if kernel else None,
        "submission_sha256": entry["sha256"],
    }


def _complete_kernel(workspace: Workspace, ledger: Ledger, run: RunRecord, kernel: Mapping[str, object]) -> Record:
    """What building the kernel anew needs beside the run's prediction files: its source, folds and scores."""
    known = find_source(workspace.root, str(kernel["source_sha256"])) if kernel.get("source_sha256") else None
    directory = RunDirectory(run.folder)
    files = [path for path in (directory.folds, directory.metrics) if path.is_file()]
    return {
        **kernel,
        "commit": known.commit if known else None,
        "diff": _keep_diff(ledger, known.diff) if known and known.diff else None,
        "files_sha256": {path.name: _keep_or_digest(ledger, path) for path in files},
    }


def _keep_or_digest(ledger: Ledger, path: Path) -> str:
    if path.stat().st_size <= KEPT_BYTES:
        return ledger.keep(path.read_bytes())
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _keep_diff(ledger: Ledger, diff: str) -> Record:
    """The uncommitted changes, stored whatever their size: no other place has them."""
    content = without_secrets(diff)
    return {"sha256": ledger.keep(content.encode()), "secrets_removed": content.count(REMOVED)}
