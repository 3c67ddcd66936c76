"""The ledger: for each submission one file with all that went into it.

`ledger/<host>/<competition>/<number>@<run>.json` is a record, `ledger/files/<sha256>` what is small and has to be there
again: configuration, results of the folds, uncommitted changes. The folder is meant to be committed: what git tracks
survives `git clean` and travels to every clone, and the files of several hands meet in no conflict. No secret is
written to it. A record carries the digest of its own entries; when a score arrives, its file is replaced as a whole.

`ledger/ledger.jsonl` holds the records of the version before, and is only read: a file of the same ref and run wins.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.files.atomic import atomic_file, write_json
from components.files.digests import check_seal, file_digest, sealed
from components.files.json_lines import whole_lines
from pipelines import names
from pipelines.errors import PodiumError
from pipelines.kernels.submitted_kernel import KeptDiff, SubmittedKernel
from pipelines.records import DamagedRecord
from pipelines.redaction import REMOVED, cleaned, find_secrets, without_secrets
from pipelines.runs.run import Run
from pipelines.runs.source.search import find_source
from pipelines.runs.submission import Host, Submission
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.workspace import Workspace

# A file up to this size is kept beside the records; weights are found by their digests instead.
KEPT_BYTES = 100_000


class Ledger:
    """The records of one checkout, safe against other processes that write at the same moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._former_lines = folder / "ledger.jsonl"

    def records(self) -> list[LedgerEntry]:
        """Each submission in its latest state, in the order of their times.

        Raises DamagedRecord naming file and field of one that is damaged, or has an entry that cannot be, as a name
        that leads elsewhere.
        """
        records, damages = self.scan()
        if damages:
            raise damages[0]
        return records

    def scan(self) -> tuple[list[LedgerEntry], list[DamagedRecord]]:
        """As `records`, with what is damaged beside what is sound."""
        found: dict[str, LedgerEntry] = {}
        damages = []
        try:
            found |= self._former()
        except DamagedRecord as error:
            damages.append(error)
        for path in self._paths():
            try:
                entry = self._read(path)
                found[entry.address] = entry
            except DamagedRecord as error:
                damages.append(error)
        return sorted(found.values(), key=lambda entry: (entry.time, entry.number, entry.run)), damages

    def find(self, ref: str) -> LedgerEntry:
        """The record of a ref (`local:place_names:3`, `kaggle:1234`), of `<ref>@<run>`, or of a run's id: its last.

        Raises PodiumError for one that is not there, and for a ref that two hosts of one name have given.
        """
        records = self.records()
        by_ref = [entry for entry in records if ref in (entry.ref, entry.address)]
        if len(by_ref) > 1:
            choices = ", ".join(entry.address for entry in by_ref)
            raise PodiumError(f"{ref}: {len(by_ref)} submissions bear this ref; write one of {choices}")
        found = by_ref or [entry for entry in records if entry.run == ref]
        if not found:
            known = ", ".join(entry.ref for entry in records[-5:]) or "none: `make submit EXP=…` writes the first"
            raise PodiumError(f"{ref}: no submission in {self.folder} has this ref; its last ones are {known}")
        return found[-1]

    def of_submission(self, submission: Submission, run: str) -> LedgerEntry | None:
        """The record of a run's submission. Raises DamagedRecord; that of another submission is not looked at."""
        path = self._place(submission.host, submission.competition, submission.ref, run)
        return self._read(path) if path.is_file() else self._former().get(f"{submission.address}@{run}")

    def write(self, entry: LedgerEntry) -> LedgerEntry:
        """Write a record without its secrets, whole or not at all, and return it so.

        Raises DamagedRecord for one that could not be read again, and OSError where the disk does not take it.
        """
        text = without_secrets(json.dumps(cleaned(entry.entries()), ensure_ascii=False))
        written = LedgerEntry.parse(text, f"{self.folder}: {entry.address}")
        path = self._place(written.host, written.competition, written.number, written.run)
        write_json(self._within(path), sealed(json.loads(text)))
        return written

    def keep(self, content: bytes) -> str:
        """Store a small file under its sha256, which is returned; one with a secret in it is not stored."""
        digest = hashlib.sha256(content).hexdigest()
        if not find_secrets(content.decode("utf-8", errors="replace")):
            self._store(digest, content)
        return digest

    def keep_or_digest(self, path: Path) -> str:
        """A file's sha256; the file is kept where it is small."""
        return self.keep(path.read_bytes()) if path.stat().st_size <= KEPT_BYTES else file_digest(path)

    def kept(self, digest: str) -> Path | None:
        """The stored file of this sha256. Raises PodiumError where its bytes are others by now."""
        path = self.file(digest)
        if not path.is_file():
            return None
        if file_digest(path) != digest:
            cure = f"`git checkout -- {self.folder.name}` brings the committed file back"
            raise PodiumError(f"{path}: was changed, its bytes are not those of its name: {cure}")
        return path

    def file(self, digest: str) -> Path:
        """Where a file of this sha256 is stored, if it is."""
        return self.folder / "files" / names.digest(digest)

    def _store(self, digest: str, content: bytes) -> None:
        path = self.file(digest)
        if not path.is_file() or file_digest(path) != digest:
            with atomic_file(self._within(path)) as partial:
                partial.write_bytes(content)

    def _within(self, path: Path) -> Path:
        """A place to write to, which no symbolic link that came with a clone leads elsewhere."""
        try:
            return names.within(self.folder, path)
        except ValueError as error:
            raise PodiumError(f"{error}; remove the symbolic link") from None

    def _place(self, host: Host, competition: str, number: int, run: str) -> Path:
        return self.folder / host / competition / f"{number}@{run}.json"

    def _paths(self) -> Iterator[Path]:
        for host in Host:
            yield from sorted((self.folder / host).glob("*/*.json"))

    def _read(self, path: Path) -> LedgerEntry:
        try:
            content = path.read_bytes()
            entry = LedgerEntry.parse(content, path)
            check_seal(json.loads(content), path, is_required=True)
        except (DamagedRecord, ValueError) as error:
            raise self._damaged(str(error), "record") from None
        except OSError as error:
            raise self._damaged(f"{path}: unreadable ({error.strerror or error})", "record") from None
        if path != self._place(entry.host, entry.competition, entry.number, entry.run):
            raise self._damaged(f"{path}: is the record of {entry.address}, which another file is named by", "record")
        return entry

    def _former(self) -> dict[str, LedgerEntry]:
        """The records of ledger.jsonl: a line begins one, and any later line of the same ref and run adds to it."""
        merged: dict[str, dict[str, Any]] = {}
        found: dict[str, LedgerEntry] = {}
        for number, line in enumerate(whole_lines(self._former_lines), start=1):
            place = f"{self._former_lines}: line {number}"
            try:
                content = dict(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                raise self._damaged(f"{place} is no record", "lines") from None
            address = f"{content.get('ref')}@{content.get('run')}"
            if content.get("event") == "submitted":
                # What it never had to say follows from its ref.
                merged[address] = {"host": str(content.get("ref")).split(":")[0]} | content
            elif address in merged:
                merged[address] |= {name: value for name, value in content.items() if name != "time"}
            else:
                continue
            try:
                # Null is how a line says that there is none.
                said = {name: value for name, value in merged[address].items() if value is not None}
                found[address] = LedgerEntry.of(said, place)
            except DamagedRecord as error:
                raise self._damaged(str(error), "lines") from None
        return found

    def _damaged(self, text: str, what: str) -> DamagedRecord:
        back = f"`git checkout -- {self.folder.name}` brings the committed {what} back"
        return DamagedRecord(f"{names.one_line(text)}: {back}")


def enter_submission(
    workspace: Workspace, run: Run, submission: Submission, *, kernel: SubmittedKernel | None = None
) -> LedgerEntry:
    """Write the record of a run's submission, or its new state into the record that is there; return the record.

    Called again with the same state nothing is written. `kernel` is what a kernel's version was pushed with where its
    output was submitted.
    """
    ledger = Ledger(workspace.ledger)
    former = ledger.of_submission(submission, run.id)
    if former is None or former.submission_sha256 != submission.sha256:
        whole = _complete_kernel(workspace, ledger, run, kernel) if kernel else None
        return ledger.write(_in_state_of(submission, _describe(ledger, run, submission, whole)))
    return former if is_entered(former, submission) else ledger.write(_in_state_of(submission, former))


def is_entered(entry: LedgerEntry | None, submission: Submission) -> bool:
    """Whether the ledger's record of a submission says all that its run says."""
    if entry is None or entry.submission_sha256 != submission.sha256:
        return False
    return _in_state_of(submission, entry).line() == entry.line()  # as they are written: nan is equal to nan


def _in_state_of(submission: Submission, entry: LedgerEntry) -> LedgerEntry:
    """The record with what the host says by now; what it does not say again stays."""
    return replace(
        entry,
        status=submission.status,
        public=submission.public or entry.public,
        private=submission.private or entry.private,
        error=without_secrets(submission.error) if submission.error else entry.error,
        place=entry.place if submission.place is None else submission.place,
    )


def _describe(ledger: Ledger, run: Run, submission: Submission, kernel: SubmittedKernel | None) -> LedgerEntry:
    record = run.record
    files = {path.relative_to(run.path).as_posix(): path for path in run.prediction_files()}
    digests = {name: ledger.keep_or_digest(path) for name, path in files.items()}
    weights = {name: digest for name, digest in digests.items() if "checkpoints" in Path(name).parts}
    return LedgerEntry(
        time=submission.time,
        ref=submission.address,
        host=submission.host,
        competition=submission.competition,
        experiment=run.experiment,
        run=run.id,
        description=submission.description,
        command=record.command,
        mode=record.mode,
        commit=record.commit,
        diff=_keep_diff(ledger, run.read_diff()) if run.diff_file.is_file() else None,
        source_sha256=record.source_sha256,
        data_sha256=record.data_sha256 or {},
        folds_sha256=record.folds_sha256,
        config_sha256=digests.pop("config.yaml"),
        files_sha256={name: digest for name, digest in digests.items() if name not in weights},
        weights_sha256=weights,
        seed=record.seed,
        versions=record.versions or {},
        machine=record.machine,
        wall_seconds=record.wall_seconds,
        cv={name: score for name, score in run.metrics.items() if name.startswith(("cv/", "oof/"))},
        tracking=record.tracking,
        kernel=kernel,
        submission_sha256=submission.sha256,
    )


def _complete_kernel(workspace: Workspace, ledger: Ledger, run: Run, kernel: SubmittedKernel) -> SubmittedKernel:
    """What building the kernel anew needs beside the run's prediction files: its source, folds and scores."""
    known = find_source(workspace.root, kernel.source_sha256) if kernel.source_sha256 else None
    files = [path for path in (run.folds_file, run.metrics_file) if path.is_file()]
    return replace(
        kernel,
        commit=known.commit if known else None,
        diff=_keep_diff(ledger, known.diff) if known and known.diff else None,
        files_sha256={path.name: ledger.keep_or_digest(path) for path in files},
    )


def _keep_diff(ledger: Ledger, diff: str) -> KeptDiff:
    """The uncommitted changes, stored whatever their size: no other place has them."""
    content = without_secrets(diff)
    return KeptDiff(sha256=ledger.keep(content.encode()), secrets_removed=content.count(REMOVED))
