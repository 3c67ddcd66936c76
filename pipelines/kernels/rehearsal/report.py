"""rehearsal.json: how each case of a rehearsal went, and what it takes of time and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipelines.addresses import RecordedKernel
from pipelines.records import Digest, Place, Record


class Image(StrEnum):
    """Whose library versions a rehearsal runs with."""

    HERE = "here"
    KAGGLE = "kaggle"

    @property
    def report_name(self) -> str:
        return "rehearsal.json" if self is Image.HERE else "rehearsal-kaggle.json"


@dataclass(frozen=True, kw_only=True)
class CaseReport(Record):
    """How a case went; `problem` is empty where nothing is wrong, `agreement` says how it compares to this machine."""

    name: str
    data: str
    layout: str
    rows: int
    seconds: float
    peak_bytes: int
    outputs: Mapping[Place, int]
    submission: str
    agreement: str
    problem: str
    log: str


@dataclass(frozen=True, kw_only=True)
class RehearsalReport(Record):
    """A rehearsal of one build. The seconds are None where no rerun came to its end."""

    kernel: RecordedKernel
    bundle_sha256: Digest
    image: Image
    ok: bool
    not_isolated: tuple[str, ...]
    startup_seconds: float | None
    seconds_per_row: float | None
    peak_bytes: int
    cases: tuple[CaseReport, ...]

    @property
    def num_public_rows(self) -> int:
        return max((case.rows for case in self.cases if case.data == "public"), default=0)


def read_report(folder: Path, image: Image) -> RehearsalReport | None:
    """The report beside a built kernel; None where it was not rehearsed so."""
    path = folder / image.report_name
    return RehearsalReport.read(path) if path.is_file() else None
