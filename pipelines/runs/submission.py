"""A submission as its run knows it: one line of submissions.jsonl for each state, on any host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt

from components.files.json_lines import locked_lines
from pipelines import names
from pipelines.addresses import RecordedVersion
from pipelines.records import DamagedRecord, Name, Record, Time

Scores = Mapping[str, float]


class Host(StrEnum):
    """Whose leaderboard it is."""

    LOCAL = "local"
    KAGGLE = "kaggle"


class Status(StrEnum):
    """What the host says of it, in Kaggle's words."""

    PENDING = "PENDING"
    COMPLETE = "COMPLETE"
    ERROR = "ERROR"


def _sent_digest(value: str) -> str:
    return value and names.digest(value)


# The sha256 of the file that was sent; "" where a code competition's kernel left none here.
SentDigest = Annotated[str, AfterValidator(_sent_digest)]


@dataclass(frozen=True, kw_only=True)
class Submission(Record):
    """One submission in its latest state. The host counts its `ref`: Kaggle over all competitions, the local one per each.

    `public` and `private` map metrics to scores; the local host's private ones are there once they were revealed.
    """

    time: Time
    host: Host
    competition: Name
    ref: NonNegativeInt
    description: str = ""
    sha256: SentDigest
    kernel: RecordedVersion | None = None
    is_code: bool = False
    status: Status
    public: Scores = field(default_factory=dict)
    private: Scores | None = None
    error: str = ""
    error_class: str = ""
    place: int | None = None
    rows: int | None = None

    @property
    def address(self) -> str:
        """`kaggle:1234`; the local host counts for each competition, hence `local:place_names:12`."""
        place = "" if self.host is Host.KAGGLE else f"{self.competition}:"
        return f"{self.host}:{place}{self.ref}"


def read_submissions(path: Path) -> list[Submission]:
    """The submissions in a run's submissions.jsonl, oldest first, each in its latest state.

    Raises DamagedRecord naming line and field of one that is damaged; a last line that a kill has torn is none.
    """
    try:
        lines = Submission.read_lines(path)
    except DamagedRecord as error:
        raise DamagedRecord(f"{error}; put the file back from a copy, or delete the line") from None
    return list({(line.host, line.ref): line for line in lines}.values())


def note_submission(path: Path, submission: Submission) -> None:
    """Add the state of a submission, unless the file says it already; it replaces the state that the file had of it.

    Raises OSError, with nothing added, where the disk does not take it.
    """
    with locked_lines(path) as append:
        if submission.line() not in [known.line() for known in read_submissions(path)]:
            append(submission.line())
