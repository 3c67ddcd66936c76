"""`podium submit`: a run's submission.csv, checked, onto a leaderboard, and the score back onto the run.

The score is written into the run directory first and told to the tracker after that, so that a tracker that cannot be
reached costs nothing but a message.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from components.metrics import METRICS
from pipelines.adapters.kaggle_client import KaggleClient
from pipelines.adapters.kaggle_retries import Retries
from pipelines.adapters.kaggle_submissions import (
    KernelOffer,
    check_form,
    check_limit,
    error_class,
    failure,
    send_kernel,
    wait_for_score,
)
from pipelines.adapters.kernel_pushes import PushLog
from pipelines.adapters.ledger import describe_kernel, enter_submission, ledger_tags
from pipelines.adapters.local_host import LeaderboardRow, LocalHost, Receipt
from pipelines.adapters.submission_offer import Offer, check_file, check_run, chosen_offer, described
from pipelines.competitions.competition import Competition, load_competition
from pipelines.config.workspace import Workspace
from pipelines.engine.run_index import RunRecord, append_submission, load_submissions
from pipelines.errors import PodiumError
from pipelines.tables import Column, format_score, print_table

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
    patience_seconds: float = 1800,
    retries: Retries | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Submit the newest finished run of `experiment`, or `run`, or what the pushed `kernel` left or is.

    Returns the entry added to the run's submissions.jsonl. `competition` (name or slug), where given, must be the
    run's. `host` defaults to the competition's. `reveal` shows the local host's private scores. Kaggle is asked for
    the score until `patience_seconds` are over; submitting the same again then goes on waiting for that submission.
    Raises `PodiumError`, also for a submission that Kaggle could not score, after that is written down.
    """
    console = console or Console()
    offer = chosen_offer(workspace, experiment, run, kernel, version, console)
    check_run(offer)
    rules = load_competition(offer.record.competition)
    _check_choices(offer.record, rules, competition, host)
    if (host or rules.host) == "local":
        check_file(workspace, offer, rules)
        entry = _submit_locally(workspace, offer, rules, described(offer, message), reveal, console)
    else:
        client = KaggleClient(retries)
        entry = _submit_to_kaggle(workspace, client, offer, rules, message, patience_seconds, console)
    _write_down(workspace, offer, rules, entry, console)
    if entry["status"] == "ERROR":
        raise failure(rules.kaggle_slug, entry["ref"], entry["error"])
    return entry


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
    entry = _new_entry(offer, rules, "kaggle", ref, described(offer, message))
    entry |= {"status": "COMPLETE", "public": _named(public, rules), "error": ""}
    if private is not None:
        entry["private"] = _named(private, rules)
    append_submission(offer.record, entry)
    _write_down(workspace, offer, rules, entry, console)
    console.print(f"ref {ref}; lb/public {rules.metric} {format_score(public)}, as recorded by hand", highlight=False)
    return entry


def _write_down(
    workspace: Workspace, offer: Offer, rules: Competition, entry: Mapping[str, Any], console: Console
) -> None:
    tags = _enter_into_ledger(workspace, offer, entry, console)
    _tell_tracker(workspace, offer.record, rules, entry, tags, console)


def _enter_into_ledger(
    workspace: Workspace, offer: Offer, entry: Mapping[str, Any], console: Console
) -> dict[str, str]:
    """Record what the submission was made of; return what of it the tracker is told."""
    try:
        kernel = None
        if offer.kernel is not None and offer.push is not None:
            manifest = PushLog(workspace, offer.kernel.kernel.split("/")[-1]).manifest(offer.kernel.version)
            versions = offer.push.get("datasets")
            kernel = describe_kernel(manifest, version=offer.kernel.version, dataset_versions=versions)
        return ledger_tags(enter_submission(workspace, offer.record, entry, kernel=kernel))
    except (OSError, PodiumError) as error:
        console.print(
            f"the ledger could not be written ({error}); the score stands in {offer.record.submissions}, do not submit "
            "again",
            highlight=False,
            soft_wrap=True,
        )
        return {}


def _check_choices(record: RunRecord, rules: Competition, competition: str | None, host: str | None) -> None:
    if competition and competition not in (rules.name, rules.kaggle_slug):
        cure = f"submit it to {rules.name} or choose a run of {competition} (`podium compare`)"
        raise PodiumError(f"run {record.run}: is of competition {rules.name}, not of {competition}; {cure}")
    if host and host not in HOSTS:
        raise PodiumError(f"host {host}: no such host; choose one of {', '.join(HOSTS)}")


def _submit_locally(
    workspace: Workspace, offer: Offer, rules: Competition, description: str, reveal: bool, console: Console
) -> dict[str, Any]:
    record, local_host = offer.record, LocalHost(workspace.local_host(rules.kaggle_slug), rules)
    receipt = local_host.submit(
        offer.path, run=record.run, experiment=record.experiment, description=description, reveal=reveal
    )
    entry = _new_entry(offer, rules, "local", receipt.ref, description)
    entry |= {"status": "COMPLETE", "public": dict(receipt.public), "place": receipt.place, "rows": receipt.num_rows}
    if receipt.private is not None:
        entry["private"] = dict(receipt.private)
    append_submission(record, entry)
    _print_leaderboard(local_host.leaderboard(reveal=reveal), record, rules, console)
    _print_receipt(receipt, record, rules, console)
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


def _print_receipt(receipt: Receipt, record: RunRecord, rules: Competition, console: Console) -> None:
    facts = [
        f"ref {receipt.ref}" + (f", {record.trial}" if record.trial else ""),
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
    workspace: Workspace,
    client: KaggleClient,
    offer: Offer,
    rules: Competition,
    message: str | None,
    patience_seconds: float,
    console: Console,
) -> dict[str, Any]:
    slug, description = rules.kaggle_slug, described(offer, message)
    is_code = check_form(client, slug, offer.kernel)
    if offer.path.is_file() or not is_code:
        check_file(workspace, offer, rules)
    entry = _pending(offer)
    if entry is not None:
        console.print(f"ref {entry['ref']} was submitted at {entry['time']} and is still waited for", highlight=False)
    else:
        check_limit(client, slug)
        if is_code:
            assert offer.kernel is not None
            _check_finished(client, offer.kernel)
            ref = send_kernel(client, slug, offer.kernel, description)
        else:
            ref = client.submit_file(slug, offer.path, description)
        entry = _new_entry(offer, rules, "kaggle", ref, description) | {"status": "PENDING", "public": {}}
        append_submission(offer.record, entry)
        console.print(f"submitted to {slug}: ref {ref}", highlight=False)
    state = wait_for_score(client, entry["ref"], slug, patience_seconds)
    entry = entry | {"status": state.status, "public": _named(state.public, rules), "error": state.error}
    if state.private is not None:
        entry["private"] = _named(state.private, rules)
    if state.status == "ERROR":
        entry["error_class"] = error_class(state.error)
    append_submission(offer.record, entry)
    if state.status != "ERROR":
        console.print(f"ref {state.ref}; lb/public {rules.metric} {format_score(state.public)}", highlight=False)
    return entry


def _pending(offer: Offer) -> dict[str, Any] | None:
    """An earlier submission of the very same, whose score nobody has seen yet."""
    waiting = [
        entry
        for entry in load_submissions(offer.record)
        if entry["host"] == "kaggle"
        and entry["status"] == "PENDING"
        and (entry["sha256"], entry.get("kernel")) == (offer.sha256, str(offer.kernel) if offer.kernel else None)
    ]
    return waiting[-1] if waiting else None


def _check_finished(client: KaggleClient, offer: KernelOffer) -> None:
    """Kaggle would refuse a version that has not ended well, in fewer words."""
    state = client.kernels.status(offer.kernel, offer.version)
    name = offer.kernel.split("/")[-1]
    if not state.is_over:
        raise PodiumError(f"{offer.kernel}: version {offer.version} is {state.status}; wait for it: make push K={name}")
    if state.status != "COMPLETE":
        cure = f"correct it, push it and submit the new version: make push K={name}"
        raise PodiumError(f"{offer.kernel}: version {offer.version} ended as {state.status}; {cure}")


def _new_entry(offer: Offer, rules: Competition, host: str, ref: int, description: str) -> dict[str, Any]:
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host,
        "competition": rules.name,
        "ref": ref,
        "description": description,
        "sha256": offer.sha256,
    }
    return entry | ({"kernel": str(offer.kernel)} if offer.kernel else {})


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
    tags |= {f"submission.{key}": entry[key] for key in ("status", "error_class", "kernel") if entry.get(key)}
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
