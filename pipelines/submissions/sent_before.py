"""What of an offer was submitted already, by any run or kernel of this checkout: the same bytes are sent once.

A code competition is offered no bytes but a kernel's version, which counts by kernel and version.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.addresses import KernelVersion
from pipelines.competitions.competition import Competition
from pipelines.errors import PodiumError
from pipelines.runs.run import Run
from pipelines.runs.submission import Host, Status, Submission, read_submissions
from pipelines.screen import format_score
from pipelines.submissions.journal import Intent
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.submissions.offer import Offer
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Former:
    """An earlier submission of the same, and its run where that is still here."""

    submission: Submission
    run: str
    here: Run | None

    @property
    def is_pending(self) -> bool:
        return self.submission.status is Status.PENDING and self.here is not None

    def describe(self, offer: Offer, rules: Competition, *, is_code: bool) -> str:
        """The one line that says so, and how it is sent all the same."""
        score = self.submission.public.get(rules.metric)
        state = f"{rules.metric} {format_score(score)}" if score is not None else str(self.submission.status)
        what = f"{offer.kernel}" if is_code else "this file"
        of_whom = "" if self.run == offer.run.id else f" of run {self.run}"
        return f"{what} is submission {self.submission.ref}{of_whom} ({state}); AGAIN=1 sends it once more"


def find_former(workspace: Workspace, offer: Offer, rules: Competition, *, is_code: bool) -> Former | None:
    """The newest submission of the same to Kaggle that did not end in an error; one that is still waited for first."""
    of_runs = list(_of_runs(workspace))
    here = {(former.run, former.submission.address) for former in of_runs}
    gone = [former for former in _of_ledger(workspace) if (former.run, former.submission.address) not in here]
    found = [
        former
        for former in (*of_runs, *gone)
        if former.submission.status is not Status.ERROR and is_same(former.submission, offer, rules, is_code=is_code)
    ]
    # Kaggle's refs grow, and no clock is as sure.
    found.sort(key=lambda former: (former.is_pending, former.submission.ref, former.here is not None))
    return found[-1] if found else None


def is_same(sent: Submission | Intent, offer: Offer, rules: Competition, *, is_code: bool) -> bool:
    """Whether it was, or is being, sent to Kaggle and is the same as the offer."""
    if (sent.host, sent.competition) != (Host.KAGGLE, rules.name):
        return False
    if is_code:
        return offer.kernel is not None and sent.kernel == offer.kernel
    # What a code competition scored was made over the hidden rows, and is another file than the version's output here.
    return not sent.is_code and bool(offer.sha256) and sent.sha256 == offer.sha256


def _of_runs(workspace: Workspace) -> Iterator[Former]:
    for path in workspace.runs.glob("*/*/submissions.jsonl"):
        run = Run.look(path.parent)
        try:
            submissions = read_submissions(path)
        except PodiumError:
            continue  # settling has named the file
        for submission in submissions:
            yield Former(submission, run.id, run)


def _of_ledger(workspace: Workspace) -> Iterator[Former]:
    """Submissions of runs that are gone; the ledger is told of each. Reading it names those that are damaged."""
    for entry in Ledger(workspace.ledger).scan()[0]:
        yield Former(_submission_of(entry), entry.run, None)


def _submission_of(entry: LedgerEntry) -> Submission:
    kernel = entry.kernel
    return Submission(
        time=entry.time,
        host=entry.host,
        competition=entry.competition,
        ref=entry.number,
        sha256=entry.submission_sha256 or "",
        kernel=KernelVersion(kernel.kernel, kernel.version) if kernel else None,
        status=entry.status or Status.COMPLETE,
        public=entry.public,
    )
