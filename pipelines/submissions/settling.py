"""Recording a submission everywhere, and completing what an earlier command left undone.

A submission is recorded in this order: the host's own board, the run's submissions.jsonl, the ledger, the tracker. A
kill, a full disk or a tracker that is away leaves the later ones behind. Every later `podium submit` settles that
first: it compares what it can read (boards, runs, ledger), and goes on from the intents (`submission_journal`) for
what it cannot. With nothing to do it reads a few small files.
"""

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.local_host import LocalHost, Receipt, read_board
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient, KaggleSubmission
from pipelines.kaggle.submissions import error_class, find_sent
from pipelines.kernels.pushes import PushLog
from pipelines.runs.index import RunRecord, append_submission, load_record, load_submissions
from pipelines.submissions.journal import CHOSEN, Intent, Journal
from pipelines.submissions.ledger import Ledger, describe_kernel, enter_submission, is_entered, ledger_tags, ref_of
from pipelines.workspace import Workspace

# So long Kaggle may take to list what it took.
FRESH = timedelta(minutes=5)

Entry = dict[str, Any]
Key = tuple[Path, str, int]


def local_entry(rules: Competition, receipt: Receipt, line: Mapping[str, Any]) -> Entry:
    """What a run keeps of a line of the local host's board; its private scores only where the receipt shows them."""
    entry = {
        "time": receipt.time,
        "host": "local",
        "competition": rules.name,
        "ref": receipt.ref,
        "description": line.get("description", ""),
        "sha256": line["sha256"],
    }
    entry |= {"kernel": line["kernel"]} if line.get("kernel") else {}
    entry |= {"status": "COMPLETE", "public": dict(receipt.public), "place": receipt.place, "rows": receipt.num_rows}
    return entry | ({"private": dict(receipt.private)} if receipt.private is not None else {})


def kaggle_entry(entry: Entry, state: KaggleSubmission, rules: Competition) -> Entry:
    """An entry with what Kaggle says of it by now."""
    entry = entry | {"status": state.status, "public": named(state.public, rules), "error": state.error}
    if state.private is not None:
        entry["private"] = named(state.private, rules)
    if state.status == "ERROR":
        entry["error_class"] = error_class(state.error)
    return entry


def named(score: float | None, rules: Competition) -> dict[str, float]:
    """A score under its metric's name; nothing where there is none."""
    return {} if score is None else {rules.metric: score}


def write_down(workspace: Workspace, record: RunRecord, rules: Competition, entry: Entry, console: Console) -> bool:
    """Enter an entry of the run's submissions.jsonl into the ledger and tell the tracker; whether both took it."""
    tags = enter_into_ledger(workspace, record, entry, console)
    is_told = _tell_tracker(workspace, record, rules, entry, tags or {}, console)
    return tags is not None and is_told


def settle(workspace: Workspace, console: Console, client: KaggleClient | None = None) -> None:
    """Complete the records of all earlier submissions of this checkout. With a client Kaggle's are looked for as well.

    Does nothing a second time. What still cannot be done is said in one line each and waits for the next call.
    """
    if not workspace.runs.is_dir():
        return
    journal = Journal(workspace)
    with journal.settling():
        boards = _read_boards(workspace)
        # Read after the boards: a line of a command that is at work is its own to record.
        busy = {str(intent.facts.get("run")) for intent in journal.others()}
        with journal.abandoned() as intents:
            _Settling(workspace, journal, console, client, busy).settle(boards, intents)


@dataclass
class _Settling:
    """One pass. `told` holds the entries that were written down in it, `waiting` those that an intent stands for."""

    workspace: Workspace
    journal: Journal
    console: Console
    client: KaggleClient | None
    busy: set[str]
    told: set[Key] = field(default_factory=set)
    waiting: set[Key] = field(default_factory=set)

    def settle(self, boards: Mapping[str, list[Entry]], intents: list[Intent]) -> None:
        self.waiting = {
            (self.workspace.runs / str(intent.facts.get("run")), str(intent.facts.get("host")), intent.ref)
            for intent in intents
            if intent.ref is not None
        }
        for slug, lines in boards.items():
            for line in lines:
                self._complete_run(slug, line)
        entered = self._ledger_records()
        for path in sorted(self.workspace.runs.glob("*/*/submissions.jsonl")):
            record = load_record(path.parent)
            if entered is None or record.damage or self._name(record.folder) in self.busy:
                continue
            for entry in self._entries(record):
                if not is_entered(entered.get((ref_of(entry), record.run)), entry):
                    self._write_down(record, entry)
        for intent in intents:
            self._go_on(intent)

    def _complete_run(self, slug: str, line: Entry) -> None:
        """Add a line of the board to its run, where the run is here and lacks it."""
        record = find_record(self.workspace, str(line.get("experiment")), line["run"])
        if record is None or self._name(record.folder) in self.busy:
            return
        known = {(entry["host"], entry["ref"], entry["sha256"]) for entry in self._entries(record)}
        if ("local", line["ref"], line["sha256"]) in known:
            return
        rules = load_competition(record.competition)
        receipt = LocalHost(self.workspace.local_host(slug), rules).receipt(line["ref"])
        entry = local_entry(rules, receipt, line)
        append_submission(record, entry)
        self._write_down(record, entry)

    def _go_on(self, intent: Intent) -> None:
        facts = intent.facts
        folder = self.workspace.runs / str(facts.get("run"))
        record = load_record(folder)
        if record.damage:
            self._say(f"{folder}: is gone or damaged; its submission of {facts.get('time')} is not followed up")
            intent.strike()
            return
        entries = [entry for entry in self._entries(record) if _is_of(entry, facts)]
        was_sent = facts.get("status") != CHOSEN
        if facts.get("host") == "kaggle" and was_sent and not entries:
            found = self._found_on_kaggle(record, intent)
            if found is None:
                return
            entries = found
        are_told = [self._write_down(record, entry, intent) for entry in entries]
        if all(are_told):
            intent.strike()

    def _found_on_kaggle(self, record: RunRecord, intent: Intent) -> list[Entry] | None:
        """What Kaggle took before this could be written down, none where it took nothing; None where nobody asked."""
        if self.client is None:
            return None
        facts = intent.facts
        rules = load_competition(str(facts["competition"]))
        entry = {key: facts[key] for key in ("time", "host", "competition", "description", "sha256")}
        state = (
            self.client.submission(intent.ref)
            if intent.ref is not None
            else find_sent(
                self.client,
                rules.kaggle_slug,
                description=str(facts["description"]),
                last_ref=int(facts.get("last_ref") or 0),
                known=_known_refs(self.workspace),
                is_fresh=datetime.now(UTC) - datetime.fromisoformat(str(facts["time"])) < FRESH,
            )
        )
        if state is None:
            return []
        entry = {**entry, "ref": state.ref} | {key: facts[key] for key in ("kernel", "is_code") if facts.get(key)}
        entry = kaggle_entry(entry, state, rules)
        append_submission(record, entry)
        return [entry]

    def _write_down(self, record: RunRecord, entry: Entry, intent: Intent | None = None) -> bool:
        """Once a pass; what cannot be told is kept as an intent of its own, unless one stands for it."""
        key = (record.folder, str(entry["host"]), int(entry["ref"]))
        if key in self.told:
            return True
        rules = load_competition(record.competition)
        if not write_down(self.workspace, record, rules, entry, self.console):
            if intent is None and key not in self.waiting:
                with self.journal.begun(**facts_of(self.workspace, record, entry)):
                    pass
            return False
        self.told.add(key)
        self._say(f"{ref_of(entry)}: the record that an earlier command left unfinished is complete")
        return True

    def _ledger_records(self) -> dict[tuple[str, str], Entry] | None:
        """None where the ledger is damaged, which is said when something is entered."""
        try:
            return {(record["ref"], record["run"]): record for record in Ledger(self.workspace.ledger).records()}
        except (PodiumError, OSError):
            return None

    def _entries(self, record: RunRecord) -> list[Entry]:
        try:
            return load_submissions(record)
        except PodiumError:
            self._say(f"{record.submissions}: holds a line that is no submission; restore the file or delete the line")
            return []

    def _name(self, folder: Path) -> str:
        return run_name(self.workspace, folder)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def run_name(workspace: Workspace, folder: Path) -> str:
    """A run's folder as an intent names it: below runs/, or whole where it lies elsewhere."""
    try:
        return folder.resolve().relative_to(workspace.runs.resolve()).as_posix()
    except ValueError:
        return str(folder.resolve())


def facts_of(workspace: Workspace, record: RunRecord, entry: Mapping[str, Any]) -> dict[str, object]:
    """What an intent says of an entry."""
    kept = ("status", "host", "competition", "ref", "sha256", "kernel", "is_code", "description", "time")
    return {"run": run_name(workspace, record.folder)} | {key: entry[key] for key in kept if key in entry}


def _is_of(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether an entry is what an intent was about: its ref, or where the kill came before there was one, its bytes."""
    if entry["host"] != facts.get("host"):
        return False
    if facts.get("ref") is not None:
        return bool(entry["ref"] == facts["ref"])
    if any(entry.get(key) != facts.get(key) for key in ("sha256", "description", "kernel")):
        return False
    if facts["host"] == "kaggle":
        # A time would not do: the same may have been sent before within the same second.
        return "last_ref" in facts and bool(entry["ref"] > facts["last_ref"])
    return str(entry["time"]) >= str(facts.get("time"))


def _read_boards(workspace: Workspace) -> dict[str, list[Entry]]:
    """The lines of every board; one that is damaged is named when something is submitted to it."""
    boards = {}
    for path in sorted((workspace.data / "local_host").glob("*/leaderboard.jsonl")):
        try:
            boards[path.parent.name] = read_board(path.parent)
        except (PodiumError, OSError):
            continue
    return boards


def find_record(workspace: Workspace, experiment: str, run: str) -> RunRecord | None:
    """The run that a board's line names, where it is here."""
    usual = workspace.runs / experiment.replace("/", "-") / run
    folders = [usual] if (usual / "run.json").is_file() else []
    folders = folders or [path.parent for path in workspace.runs.glob(f"*/{glob.escape(run)}/run.json")]
    record = load_record(folders[0]) if len(folders) == 1 else None
    return None if record is None or record.damage else record


def _known_refs(workspace: Workspace) -> set[int]:
    """Kaggle's refs that some run of this checkout has already."""
    records = (load_record(path.parent) for path in workspace.runs.glob("*/*/submissions.jsonl"))
    return {entry["ref"] for record in records for entry in load_submissions(record) if entry["host"] == "kaggle"}


def enter_into_ledger(
    workspace: Workspace, record: RunRecord, entry: Mapping[str, Any], console: Console
) -> dict[str, str] | None:
    """Record what the submission was made of; return what of it the tracker is told, None where that failed."""
    try:
        return ledger_tags(enter_submission(workspace, record, entry, kernel=_kernel_of(workspace, entry)))
    except (OSError, PodiumError) as error:
        console.print(
            f"the ledger could not be written ({error}); the score stands in {record.submissions}, and the next "
            "`podium submit` completes the ledger",
            highlight=False,
            soft_wrap=True,
        )
        return None


def _kernel_of(workspace: Workspace, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of the kernel's version that an entry names (`owner/slug/3`)."""
    if not entry.get("kernel"):
        return None
    name, version = str(entry["kernel"]).rsplit("/", 1)
    log = PushLog(workspace, name.split("/")[-1])
    push = log.find(version=int(version))
    if push is None:
        return None
    return describe_kernel(log.manifest(int(version)), version=int(version), dataset_versions=push.get("datasets"))


def _tell_tracker(
    workspace: Workspace,
    record: RunRecord,
    rules: Competition,
    entry: Mapping[str, Any],
    more_tags: Mapping[str, str],
    console: Console,
) -> bool:
    """Write lb/public, lb/<extra metric>, the ref and the ledger's tags onto the tracker's run; say so if it fails."""
    public = entry.get("public") or {}
    metrics = {"lb/public": public[rules.metric]} if rules.metric in public else {}
    metrics |= {f"lb/{name}": score for name, score in public.items() if name != rules.metric}
    if rules.metric in (entry.get("private") or {}):
        metrics["lb/private"] = entry["private"][rules.metric]
    tags = {"submission.ref": str(entry["ref"]), "submission.host": str(entry["host"]), **more_tags}
    tags |= {f"submission.{key}": entry[key] for key in ("status", "error_class", "kernel") if entry.get(key)}
    try:
        from pipelines.tracking.opening import reopen_tracker

        tracker = reopen_tracker(workspace, record.manifest)
        tracker.log_metrics(metrics)
        tracker.log_tags(tags)
        tracker.finish("FINISHED")
        num_unsent = int(getattr(tracker, "num_unsent", 0))
        reason = f"{num_unsent} requests were refused, see tracking/unsent.jsonl" if num_unsent else ""
    except Exception as error:  # whatever a tracking store may raise, the score is not lost by it
        reason = " ".join(str(error).split()) or type(error).__name__
    if reason:
        console.print(
            f"the tracker could not be told ({reason}), which the next `podium submit` tries again; the score stands "
            f"in {record.submissions}",
            highlight=False,
            soft_wrap=True,
        )
    return not reason
