"""`podium submit`: a run's submission.csv, checked, onto a leaderboard, and the score back onto the run.

The score is written into the run directory first and told to the tracker after that, so that a tracker that cannot be
reached costs nothing but a message.
"""

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from components.metrics import METRICS
from pipelines.adapters.kaggle_client import KaggleClient, KaggleSubmission
from pipelines.adapters.kaggle_errors import SITE
from pipelines.adapters.ledger import enter_submission, ledger_tags
from pipelines.adapters.local_host import LeaderboardRow, LocalHost, Receipt
from pipelines.competitions.competition import Competition, load_competition
from pipelines.config.workspace import Workspace
from pipelines.engine.run_index import RunRecord, append_submission, find_run, load_submissions, newest_finished_run
from pipelines.engine.submission import check_submission, load_submission
from pipelines.errors import PodiumError
from pipelines.tables import Column, format_score, print_table

HOSTS = ("local", "kaggle")
MAX_ROWS = 20


def submit(
    workspace: Workspace,
    *,
    experiment: str | None = None,
    run: str | None = None,
    competition: str | None = None,
    host: str | None = None,
    message: str | None = None,
    reveal: bool = False,
    patience_seconds: float = 1800,
    console: Console | None = None,
) -> dict[str, Any]:
    """Submit the newest finished run of `experiment`, or `run`; return the entry added to its submissions.jsonl.

    `competition` (name or slug), where given, must be the run's. `host` defaults to the competition's. `reveal` shows
    the local host's private scores. Kaggle is asked for the score until `patience_seconds` are over; submitting the
    same file again then goes on waiting for that submission. Raises `PodiumError`.
    """
    console = console or Console()
    record = _chosen_run(workspace, experiment, run, console)
    rules = load_competition(record.competition)
    _check_choices(record, rules, competition, host)
    sample = rules.load_sample(workspace.data_dir(rules.kaggle_slug))
    check_submission(load_submission(record.submission, sample), sample, rules, source=str(record.submission))
    description = message or f"{record.experiment} {record.run}"
    if (host or rules.host) == "local":
        entry = _submit_locally(workspace, record, rules, description, reveal, console)
    else:
        entry = _submit_to_kaggle(record, rules, description, patience_seconds, console)
    tags = _enter_into_ledger(workspace, record, entry, console)
    _tell_tracker(workspace, record, rules, entry, tags, console)
    return entry


def _enter_into_ledger(
    workspace: Workspace, record: RunRecord, entry: Mapping[str, Any], console: Console
) -> dict[str, str]:
    """Record what the submission was made of; return what of it the tracker is told."""
    try:
        return ledger_tags(enter_submission(workspace, record, entry))
    except (OSError, PodiumError) as error:
        console.print(
            f"the ledger could not be written ({error}); the score stands in {record.submissions}, do not submit again",
            highlight=False,
            soft_wrap=True,
        )
        return {}


def _chosen_run(workspace: Workspace, experiment: str | None, run: str | None, console: Console) -> RunRecord:
    if run:
        record = find_run(workspace.runs, run)
        if experiment and record.experiment != experiment:
            cure = f"leave EXP out or write EXP={record.experiment}"
            raise PodiumError(f"run {record.run}: is of experiment {record.experiment}, not of {experiment}; {cure}")
        return record
    if not experiment:
        raise PodiumError("nothing to submit: name an experiment (EXP=...) or a run (RUN=...)")
    record = newest_finished_run(workspace.runs, experiment)
    console.print(f"{experiment}: its newest finished run is {record.run}", highlight=False)
    return record


def _check_choices(record: RunRecord, rules: Competition, competition: str | None, host: str | None) -> None:
    if competition and competition not in (rules.name, rules.kaggle_slug):
        cure = f"submit it to {rules.name} or choose a run of {competition} (`podium compare`)"
        raise PodiumError(f"run {record.run}: is of competition {rules.name}, not of {competition}; {cure}")
    if host and host not in HOSTS:
        raise PodiumError(f"host {host}: no such host; choose one of {', '.join(HOSTS)}")


def _submit_locally(
    workspace: Workspace, record: RunRecord, rules: Competition, description: str, reveal: bool, console: Console
) -> dict[str, Any]:
    local_host = LocalHost(workspace.local_host(rules.kaggle_slug), rules)
    receipt = local_host.submit(
        record.submission, run=record.run, experiment=record.experiment, description=description, reveal=reveal
    )
    entry = _new_entry(record, rules, "local", receipt.ref, description)
    entry |= {"status": "COMPLETE", "public": dict(receipt.public), "place": receipt.place, "rows": receipt.num_rows}
    if receipt.private is not None:
        entry["private"] = dict(receipt.private)
    append_submission(record, entry)
    _print_leaderboard(local_host.leaderboard(reveal=reveal), record, rules, console)
    _print_receipt(receipt, rules, console)
    return entry


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


def _print_receipt(receipt: Receipt, rules: Competition, console: Console) -> None:
    facts = [
        f"ref {receipt.ref}",
        f"lb/public {rules.metric} {format_score(receipt.public[rules.metric])}",
        f"place {receipt.place} of {receipt.num_rows}",
        f"{receipt.remaining_today} of {rules.daily_limit} submissions left today",
    ]
    console.print("; ".join(facts), highlight=False, soft_wrap=True)
    if receipt.same_as is not None:
        console.print(
            f"(the same file as submission {receipt.same_as}; it counts again, as on Kaggle)", highlight=False
        )


def _submit_to_kaggle(
    record: RunRecord, rules: Competition, description: str, patience_seconds: float, console: Console
) -> dict[str, Any]:
    client = KaggleClient()
    digest = hashlib.sha256(record.submission.read_bytes()).hexdigest()
    waiting = [
        entry
        for entry in load_submissions(record)
        if entry["host"] == "kaggle" and entry["status"] == "PENDING" and entry["sha256"] == digest
    ]
    if waiting:
        entry = waiting[-1]
        console.print(f"ref {entry['ref']} was submitted at {entry['time']} and is still waited for", highlight=False)
    else:
        _check_kaggle_limit(client, rules.kaggle_slug)
        ref = client.submit_file(rules.kaggle_slug, record.submission, description)
        entry = _new_entry(record, rules, "kaggle", ref, description) | {"status": "PENDING", "public": {}}
        append_submission(record, entry)
        console.print(f"submitted to {rules.kaggle_slug}: ref {ref}", highlight=False)
    state = _wait_for_score(client, entry["ref"], rules.kaggle_slug, patience_seconds)
    entry = entry | {"status": state.status, "public": _named(state.public, rules), "error": state.error}
    if state.private is not None:
        entry["private"] = _named(state.private, rules)
    append_submission(record, entry)
    if state.status == "ERROR":
        raise PodiumError(f"{rules.kaggle_slug}: submission {state.ref} failed: {state.error or 'Kaggle says no more'}")
    console.print(f"ref {state.ref}; lb/public {rules.metric} {format_score(state.public)}", highlight=False)
    return entry


def _check_kaggle_limit(client: KaggleClient, slug: str) -> None:
    limits = client.submission_limits(slug)
    if limits.num_allowed_now > 0:
        return
    if limits.num_total == 0:
        raise PodiumError(f"{slug}: you have not joined: accept the rules at {SITE}/competitions/{slug}/rules")
    now = datetime.now(UTC)
    opens = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
    cure = f"Kaggle opens again at {opens:%Y-%m-%d %H:%M} UTC"
    raise PodiumError(f"{slug}: all submissions of today ({limits.num_today}) are used; {cure}")


def _wait_for_score(client: KaggleClient, ref: int, slug: str, patience_seconds: float) -> KaggleSubmission:
    """Ask after 1, 1.5, 2.25, ... and at most 60 seconds."""
    deadline, pause = time.monotonic() + patience_seconds, 1.0
    while (state := client.submission(ref)).status == "PENDING":
        left = deadline - time.monotonic()
        if left <= 0:
            where = f"see {SITE}/competitions/{slug}/submissions, or submit again to go on waiting"
            raise PodiumError(f"{slug}: submission {ref} has no score after {patience_seconds:.0f} s; {where}")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 60.0)
    return state


def _new_entry(record: RunRecord, rules: Competition, host: str, ref: int, description: str) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host,
        "competition": rules.name,
        "ref": ref,
        "description": description,
        "sha256": hashlib.sha256(record.submission.read_bytes()).hexdigest(),
    }


def _named(score: float | None, rules: Competition) -> dict[str, float]:
    return {} if score is None else {rules.metric: score}


def _tell_tracker(
    workspace: Workspace,
    record: RunRecord,
    rules: Competition,
    entry: Mapping[str, Any],
    more_tags: Mapping[str, str],
    console: Console,
) -> None:
    """Write lb/public, lb/<extra metric>, the ref and the ledger's tags onto the tracker's run; say so if it fails."""
    public = entry["public"]
    metrics = {"lb/public": public[rules.metric]} if rules.metric in public else {}
    metrics |= {f"lb/{name}": score for name, score in public.items() if name != rules.metric}
    if "private" in entry:
        metrics["lb/private"] = entry["private"][rules.metric]
    tags = {"submission.ref": str(entry["ref"]), "submission.host": str(entry["host"]), **more_tags}
    try:
        from pipelines.adapters.tracking import reopen_tracker

        tracker = reopen_tracker(workspace, record.manifest)
        tracker.log_metrics(metrics)
        tracker.log_tags(tags)
        tracker.finish("FINISHED")
    except Exception as error:  # whatever a tracking store may raise, the score is not lost by it
        reason = " ".join(str(error).split()) or type(error).__name__
        console.print(
            f"the tracker could not be told ({reason}); the score stands in {record.submissions}",
            highlight=False,
            soft_wrap=True,
        )


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].greater_is_better else "↓"
