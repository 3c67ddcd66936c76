"""What of an offer was submitted already, by any run or kernel of this checkout: the same bytes are sent once.

A code competition is offered no bytes but a kernel's version, which counts by kernel and version.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.competitions.competition import Competition
from pipelines.errors import PodiumError
from pipelines.runs.index import RunRecord, load_record, load_submissions
from pipelines.screen import format_score
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.offer import Offer
from pipelines.workspace import Workspace

Entry = dict[str, Any]


@dataclass(frozen=True)
class Former:
    """An earlier submission of the same, and its run where that is still here."""

    entry: Entry
    run: str
    record: RunRecord | None

    @property
    def is_pending(self) -> bool:
        return self.entry.get("status") == "PENDING" and self.record is not None

    def describe(self, offer: Offer, rules: Competition, *, is_code: bool) -> str:
        """The one line that says so, and how it is sent all the same."""
        score = (self.entry.get("public") or {}).get(rules.metric)
        state = f"{rules.metric} {format_score(score)}" if score is not None else str(self.entry.get("status"))
        what = f"{offer.kernel}" if is_code else "this file"
        of_whom = "" if self.run == offer.record.run else f" of run {self.run}"
        return f"{what} is submission {self.entry['ref']}{of_whom} ({state}); AGAIN=1 sends it once more"


def find_former(workspace: Workspace, offer: Offer, rules: Competition, *, is_code: bool) -> Former | None:
    """The newest submission of the same to Kaggle that did not end in an error; one that is still waited for first."""
    of_runs = list(_of_runs(workspace))
    here = {(former.run, former.entry["ref"]) for former in of_runs}
    gone = [former for former in _of_ledger(workspace) if (former.run, former.entry["ref"]) not in here]
    found = [
        former
        for former in (*of_runs, *gone)
        if former.entry.get("host") == "kaggle"
        and former.entry.get("competition") == rules.name
        and former.entry.get("status") != "ERROR"
        and _is_same(former.entry, offer, is_code=is_code)
    ]
    # Kaggle's refs grow, and no clock is as sure.
    found.sort(key=lambda former: (former.is_pending, int(former.entry["ref"]), former.record is not None))
    return found[-1] if found else None


def is_same_intent(facts: Mapping[str, Any], offer: Offer, rules: Competition, *, is_code: bool) -> bool:
    """Whether what another process is sending to Kaggle is the same."""
    where = (facts.get("host"), facts.get("competition"))
    return where == ("kaggle", rules.name) and _is_same(facts, offer, is_code=is_code)


def _is_same(entry: Mapping[str, Any], offer: Offer, *, is_code: bool) -> bool:
    if is_code:
        return offer.kernel is not None and entry.get("kernel") == str(offer.kernel)
    # What a code competition scored was made over the hidden rows, and is another file than the version's output here.
    return not entry.get("is_code") and bool(offer.sha256) and entry.get("sha256") == offer.sha256


def _of_runs(workspace: Workspace) -> Iterator[Former]:
    for path in workspace.runs.glob("*/*/submissions.jsonl"):
        record = load_record(path.parent)
        try:
            entries = load_submissions(record)
        except PodiumError:
            continue  # settling has named the file
        for entry in entries:
            yield Former(entry, record.run, record)


def _of_ledger(workspace: Workspace) -> Iterator[Former]:
    """Submissions of runs that are gone; the ledger is told of each."""
    try:
        records = Ledger(workspace.ledger).records()
    except (PodiumError, OSError):
        return  # entering into it says so
    for record in records:
        kernel = record.get("kernel") or {}
        entry = {name: record.get(name) for name in ("time", "host", "competition", "status", "public", "private")}
        entry |= {"ref": int(str(record["ref"]).rsplit(":", 1)[-1]), "sha256": record.get("submission_sha256")}
        entry |= {"kernel": f"{kernel['kernel']}/{kernel['version']}"} if kernel else {}
        yield Former(entry, str(record["run"]), None)
