"""`podium submit`: a run's submission.csv, checked, onto a leaderboard, and the score back onto the run.

What earlier commands left undone is settled first. Then what is sent is written down before it is sent, and recorded in
the run directory, the ledger and the tracker after that, so that no kill and no disk loses a submission; what was sent
already is not sent again.
"""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from components.metrics.table import METRICS
from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.local_host import LeaderboardRow, LocalHost, Receipt
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.errors import KaggleError
from pipelines.kaggle.retries import Retries
from pipelines.kaggle.submissions import (
    KernelOffer,
    check_form,
    check_limit,
    failure,
    send_kernel,
    wait_for_score,
)
from pipelines.runs.index import RunRecord, append_submission, load_submissions
from pipelines.screen import Column, format_score, print_table
from pipelines.submissions.journal import SENDING, Intent, Journal
from pipelines.submissions.offer import Offer, check_file, check_run, chosen_offer, described
from pipelines.submissions.sent_before import Former, find_former, is_same_intent
from pipelines.submissions.settling import (
    enter_into_ledger,
    facts_of,
    find_record,
    kaggle_entry,
    local_entry,
    named,
    run_name,
    settle,
    write_down,
)
from pipelines.workspace import Workspace

HOSTS = ("local", "kaggle")
MAX_ROWS = 20


def submit(
    workspace: Workspace,
    *,
    experiment: str | None = None,
    run: str | None = None,
    kernel: str | None = None,
    version: int | None = None,
    competition: str | None = None,
    host: str | None = None,
    message: str | None = None,
    reveal: bool = False,
    again: bool = False,
    patience_seconds: float = 1800,
    retries: Retries | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Submit the newest finished run of `experiment`, or `run`, or what the pushed `kernel` left or is.

    Returns the entry added to the run's submissions.jsonl. `competition` (name or slug), where given, must be the
    run's. `host` defaults to the competition's. `reveal` shows the local host's private scores. What was submitted
    there already is sent once more only with `again`; else the former entry is returned. Kaggle is asked for
    the score until `patience_seconds` are over; submitting the same again then goes on waiting for that submission.
    Raises `PodiumError`, also for a submission that Kaggle could not score, after that is written down.
    """
    console = console or Console()
    offer = chosen_offer(workspace, experiment, run, kernel, version, console)
    check_run(offer)
    rules = load_competition(offer.record.competition)
    _check_choices(offer.record, rules, competition, host)
    try:
        if (host or rules.host) == "local":
            settle(workspace, console)
            check_file(workspace, offer, rules)
            return _submit_locally(workspace, offer, rules, described(offer, message), reveal, again, console)
        client = KaggleClient(retries)
        settle(workspace, console, client)
        return _submit_to_kaggle(workspace, client, offer, rules, message, again, patience_seconds, console)
    except OSError as error:
        raise _refused_by_disk(error, offer.record) from error


def record_score(
    workspace: Workspace,
    *,
    experiment: str | None = None,
    run: str | None = None,
    kernel: str | None = None,
    version: int | None = None,
    ref: int,
    public: float,
    private: float | None = None,
    message: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a score that Kaggle's page shows onto the run, as `submit` would have; nothing is asked or sent."""
    console = console or Console()
    offer = chosen_offer(workspace, experiment, run, kernel, version, console)
    rules = load_competition(offer.record.competition)
    entry = _new_entry(offer, rules, ref, described(offer, message))
    entry |= {"status": "COMPLETE", "public": named(public, rules), "error": ""}
    if private is not None:
        entry["private"] = named(private, rules)
    try:
        settle(workspace, console)
        with Journal(workspace).begun(
            **_intent_facts(workspace, offer, rules, "kaggle", entry["description"])
        ) as intent:
            _append(offer.record, entry, intent)
            if write_down(workspace, offer.record, rules, entry, console):
                intent.strike()
    except OSError as error:
        raise _refused_by_disk(error, offer.record) from error
    console.print(f"ref {ref}; lb/public {rules.metric} {format_score(public)}, as recorded by hand", highlight=False)
    return entry


def _append(record: RunRecord, entry: dict[str, Any], intent: Intent) -> None:
    """Note a submission that the host has taken: in its intent, and on its run."""
    try:
        intent.note(ref=entry["ref"], status=entry["status"])
        append_submission(record, entry)
    except OSError as error:
        cure = "free some space or permissions; the next `podium submit` completes its record, without sending it again"
        reason = f"{error.filename or record.submissions}: {error.strerror or error}"
        raise PodiumError(f"submission {entry['ref']} was made, but {reason}; {cure}") from error


def _refused_by_disk(error: OSError, record: RunRecord) -> PodiumError:
    place = error.filename or record.folder
    return PodiumError(f"{place}: {error.strerror or error}; free some space or permissions and submit again")


def _check_choices(record: RunRecord, rules: Competition, competition: str | None, host: str | None) -> None:
    if competition and competition not in (rules.name, rules.kaggle_slug):
        cure = f"submit it to {rules.name} or choose a run of {competition} (`podium compare`)"
        raise PodiumError(f"run {record.run}: is of competition {rules.name}, not of {competition}; {cure}")
    if host and host not in HOSTS:
        raise PodiumError(f"host {host}: no such host; choose one of {', '.join(HOSTS)}")


def _submit_locally(
    workspace: Workspace,
    offer: Offer,
    rules: Competition,
    description: str,
    reveal: bool,
    again: bool,
    console: Console,
) -> dict[str, Any]:
    record, local_host = offer.record, LocalHost(workspace.local_host(rules.kaggle_slug), rules)
    with Journal(workspace).begun(**_intent_facts(workspace, offer, rules, "local", description)) as intent:
        try:
            receipt = local_host.submit(
                offer.path,
                run=record.run,
                experiment=record.experiment,
                description=description,
                reveal=reveal,
                again=again,
                kernel=str(offer.kernel) if offer.kernel else None,
            )
        except PodiumError:
            intent.strike()  # nothing was entered
            raise
        line = {"description": description, "sha256": offer.sha256, "kernel": str(offer.kernel or "")}
        entry = local_entry(rules, receipt, line)
        if receipt.is_former:
            owner = find_record(workspace, receipt.experiment, receipt.run)
            entry = _former_entry(owner, entry, intent)
            _say_former(Former(entry, receipt.run, owner), offer, rules, console)
        else:
            owner = record
            _append(record, entry, intent)
        if reveal or not receipt.is_former:
            _print_leaderboard(local_host.leaderboard(reveal=reveal), owner or record, rules, console)
        if not receipt.is_former:
            _print_receipt(receipt, record, rules, console)
        if owner is None or write_down(workspace, owner, rules, entry, console):
            intent.strike()
    return entry


def _former_entry(record: RunRecord | None, entry: dict[str, Any], intent: Intent) -> dict[str, Any]:
    """The entry that a run has of an earlier submission, with the private scores where they are shown now."""
    stored = load_submissions(record) if record else []
    former = next((e for e in stored if (e["host"], e["ref"]) == ("local", entry["ref"])), None)
    if record is None or former is None:
        return entry
    shown = {"private": entry["private"]} if "private" in entry else {}
    if shown and former.get("private") != entry["private"]:
        _append(record, former | shown, intent)
    return former | shown


def _print_leaderboard(rows: list[LeaderboardRow], record: RunRecord, rules: Competition, console: Console) -> None:
    """The best rows and, wherever it stands, the run's own."""
    shown = [row for row in rows if row.place <= MAX_ROWS or row.run == record.run]
    columns = [
        Column("place", [str(row.place) for row in shown], is_number=True),
        Column("name", [row.name for row in shown]),
        Column("run", [row.run or "baseline" for row in shown]),
    ]
    for metric in (rules.metric, *rules.extra_metrics):
        cells = [format_score(row.public.get(metric)) for row in shown]
        columns.append(Column(f"{metric} {_arrow(metric)}", cells, is_number=True, rank=int(metric != rules.metric)))
        if any(row.private for row in shown):
            cells = [format_score((row.private or {}).get(metric)) for row in shown]
            columns.append(Column("private", cells, is_number=True, rank=int(metric != rules.metric)))
    times = [(row.time or "")[:16].replace("T", " ") for row in shown]
    columns.append(Column("submitted (UTC)", times, rank=2))
    print_table(console, columns, marked=[index for index, row in enumerate(shown) if row.run == record.run])
    if len(rows) > len(shown):
        console.print(f"... {len(rows)} rows in all", highlight=False)


def _print_receipt(receipt: Receipt, record: RunRecord, rules: Competition, console: Console) -> None:
    facts = [
        f"ref {receipt.ref}" + (f", {record.trial}" if record.trial else ""),
        f"lb/public {rules.metric} {format_score(receipt.public[rules.metric])}",
        f"place {receipt.place} of {receipt.num_rows}",
        f"{receipt.remaining_today} of {rules.daily_limit} submissions left today",
    ]
    console.print("; ".join(facts), highlight=False, soft_wrap=True)
    if receipt.same_as is not None:
        console.print(f"(the same file as submission {receipt.same_as}, sent once more)", highlight=False)


def _say_former(former: Former, offer: Offer, rules: Competition, console: Console, *, is_code: bool = False) -> None:
    console.print(former.describe(offer, rules, is_code=is_code), highlight=False, soft_wrap=True)


def _submit_to_kaggle(
    workspace: Workspace,
    client: KaggleClient,
    offer: Offer,
    rules: Competition,
    message: str | None,
    again: bool,
    patience_seconds: float,
    console: Console,
) -> dict[str, Any]:
    slug, description = rules.kaggle_slug, described(offer, message)
    is_code = check_form(client, slug, offer.kernel)
    if offer.path.is_file() or not is_code:
        check_file(workspace, offer, rules)
    journal = Journal(workspace)
    with ExitStack() as held:
        with journal.choosing():
            former = None if again else _former_on_kaggle(workspace, journal, offer, rules, is_code=is_code)
            if former is not None and not former.is_pending:
                _say_former(former, offer, rules, console, is_code=is_code)
                return former.entry
            facts = _intent_facts(workspace, offer, rules, "kaggle", description)
            facts |= {"is_code": True} if is_code else {}
            if former is not None and former.record is not None:
                facts = facts_of(workspace, former.record, former.entry)
            intent = held.enter_context(journal.begun(**facts))
        if former is not None and former.record is not None:
            record, entry = former.record, former.entry
            console.print(
                f"ref {entry['ref']} was submitted at {entry['time']} and is still waited for", highlight=False
            )
        else:
            record, entry = offer.record, _send(client, offer, rules, description, intent, is_code=is_code)
            _append(record, entry, intent)
            console.print(f"submitted to {slug}: ref {entry['ref']}", highlight=False)
            enter_into_ledger(workspace, record, entry, console)
        entry = _await_score(client, record, rules, entry, intent, patience_seconds, console)
        if write_down(workspace, record, rules, entry, console):
            intent.strike()
    if entry["status"] == "ERROR":
        raise failure(slug, entry["ref"], entry["error"])
    return entry


def _former_on_kaggle(
    workspace: Workspace, journal: Journal, offer: Offer, rules: Competition, *, is_code: bool
) -> Former | None:
    """An earlier submission of the very same. Raises PodiumError where another process is sending it now."""
    at_work = journal.others()  # read first: what ends in between stands on its run by then
    former = find_former(workspace, offer, rules, is_code=is_code)
    for intent in at_work if former is None else []:
        if is_same_intent(intent.facts, offer, rules, is_code=is_code):
            process, since = intent.facts.get("process"), intent.facts.get("time")
            cure = "wait for it, and submit again to see its score"
            raise PodiumError(f"{rules.kaggle_slug}: process {process} has been sending the same since {since}; {cure}")
    return former


def _send(
    client: KaggleClient, offer: Offer, rules: Competition, description: str, intent: Intent, *, is_code: bool
) -> dict[str, Any]:
    """Send it, once the intent says so; a kill between Kaggle's taking it and our line loses nothing then."""
    slug = rules.kaggle_slug
    try:
        check_limit(client, slug)
        if is_code:
            assert offer.kernel is not None
            _check_finished(client, offer.kernel)
        last_ref = max((submission.ref for submission in client.submissions(slug)), default=0)
    except BaseException:
        intent.strike()
        raise
    intent.note(status=SENDING, last_ref=last_ref)
    try:
        if is_code:
            assert offer.kernel is not None
            ref = send_kernel(client, slug, offer.kernel, description)
        else:
            ref = client.submit_file(slug, offer.path, description)
    except KaggleError as error:
        if error.status is not None and 400 <= error.status < 500:
            intent.strike()  # refused: after any other error Kaggle may have taken it
        raise
    entry = _new_entry(offer, rules, ref, description) | {"status": "PENDING", "public": {}}
    return entry | ({"is_code": True} if is_code else {})


def _await_score(
    client: KaggleClient,
    record: RunRecord,
    rules: Competition,
    entry: dict[str, Any],
    intent: Intent,
    patience_seconds: float,
    console: Console,
) -> dict[str, Any]:
    try:
        state = wait_for_score(client, entry["ref"], rules.kaggle_slug, patience_seconds)
    except PodiumError:
        intent.strike()  # it stands on the run as pending, and submitting the same goes on waiting
        raise
    entry = kaggle_entry(entry, state, rules)
    _append(record, entry, intent)
    if state.status != "ERROR":
        console.print(f"ref {state.ref}; lb/public {rules.metric} {format_score(state.public)}", highlight=False)
    return entry


def _check_finished(client: KaggleClient, offer: KernelOffer) -> None:
    """Kaggle would refuse a version that has not ended well, in fewer words."""
    state = client.kernels.status(offer.kernel, offer.version)
    name = offer.kernel.split("/")[-1]
    if not state.is_over:
        raise PodiumError(f"{offer.kernel}: version {offer.version} is {state.status}; wait for it: make push K={name}")
    if state.status != "COMPLETE":
        cure = f"correct it, push it and submit the new version: make push K={name}"
        raise PodiumError(f"{offer.kernel}: version {offer.version} ended as {state.status}; {cure}")


def _new_entry(offer: Offer, rules: Competition, ref: int, description: str) -> dict[str, Any]:
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": "kaggle",
        "competition": rules.name,
        "ref": ref,
        "description": description,
        "sha256": offer.sha256,
    }
    return entry | ({"kernel": str(offer.kernel)} if offer.kernel else {})


def _intent_facts(
    workspace: Workspace, offer: Offer, rules: Competition, host: str, description: str
) -> dict[str, object]:
    facts: dict[str, object] = {
        "run": run_name(workspace, offer.record.folder),
        "host": host,
        "competition": rules.name,
        "sha256": offer.sha256,
        "description": description,
    }
    return facts | ({"kernel": str(offer.kernel)} if offer.kernel else {})


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].greater_is_better else "↓"
