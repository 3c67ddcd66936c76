"""`podium submit`: a run's submission.csv, checked, onto a leaderboard, and the score back onto the run.

What earlier commands left undone is settled first. Then what is sent is written down before it is sent, and recorded in
the run directory, the ledger and the tracker after that, so that no kill and no disk loses a submission; what was sent
already is not sent again.
"""

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from components.metrics.table import METRICS
from pipelines.addresses import KernelVersion
from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.local_host import LeaderboardRow, LocalHost, Receipt
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.errors import KaggleError
from pipelines.kaggle.kernels import KernelStatus
from pipelines.kaggle.retries import Retries
from pipelines.kaggle.submissions import (
    check_form,
    check_limit,
    failure,
    send_kernel,
    wait_for_score,
)
from pipelines.runs.run import Run
from pipelines.runs.submission import Host, Status, Submission, read_submissions
from pipelines.screen import Column, format_score, print_table
from pipelines.submissions.journal import OpenIntent, Stage
from pipelines.submissions.offer import Offer, check_file, check_run, chosen_offer, described
from pipelines.submissions.sent_before import Former, find_former, is_same
from pipelines.submissions.writer import (
    Writer,
    find_submitter,
    intent_of,
    local_submission,
    run_name,
    settle,
    told_by_kaggle,
)
from pipelines.workspace import Workspace

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
) -> Submission:
    """Submit the newest finished run of `experiment`, or `run`, or what the pushed `kernel` left or is.

    Returns the submission as the run's submissions.jsonl has it. `competition` (name or slug), where given, must be the
    run's. `host` defaults to the competition's. `reveal` shows the local host's private scores. What was submitted
    there already is sent once more only with `again`; else the former one is returned. Kaggle is asked for
    the score until `patience_seconds` are over; submitting the same again then goes on waiting for that submission.
    Raises `PodiumError`, also for a submission that Kaggle could not score, after that is written down.
    """
    console = console or Console()
    offer = chosen_offer(workspace, experiment, run, kernel, version, console)
    check_run(offer)
    rules = load_competition(offer.run.competition)
    _check_choices(offer.run, rules, competition, host)
    try:
        if (host or rules.host) == Host.LOCAL:
            settle(workspace, console)
            check_file(workspace, offer, rules)
            return _submit_locally(Writer(workspace, console), offer, rules, described(offer, message), reveal, again)
        client = KaggleClient(retries)
        settle(workspace, console, client)
        writer = Writer(workspace, console)
        return _submit_to_kaggle(writer, client, offer, rules, message, again, patience_seconds)
    except OSError as error:
        raise _refused_by_disk(error, offer.run) from error


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
) -> Submission:
    """Write a score that Kaggle's page shows onto the run, as `submit` would have; nothing is asked or sent."""
    console = console or Console()
    offer = chosen_offer(workspace, experiment, run, kernel, version, console)
    rules = load_competition(offer.run.competition)
    submission = replace(
        _new_submission(offer, rules, ref, described(offer, message)),
        status=Status.COMPLETE,
        public={rules.metric: public},
        private=None if private is None else {rules.metric: private},
    )
    writer = Writer(workspace, console)
    try:
        settle(workspace, console)
        facts = _intent_of(workspace, offer, rules, Host.KAGGLE, submission.description)
        with writer.journal.begun(**facts) as intent:
            writer.finish(offer.run, submission, writer.write(offer.run, submission, intent), intent)
    except OSError as error:
        raise _refused_by_disk(error, offer.run) from error
    console.print(f"ref {ref}; lb/public {rules.metric} {format_score(public)}, as recorded by hand", highlight=False)
    return submission


def _refused_by_disk(error: OSError, run: Run) -> PodiumError:
    place = error.filename or run.path
    return PodiumError(f"{place}: {error.strerror or error}; free some space or permissions and submit again")


def _check_choices(run: Run, rules: Competition, competition: str | None, host: str | None) -> None:
    if competition and competition not in (rules.name, rules.kaggle_slug):
        cure = f"submit it to {rules.name} or choose a run of {competition} (`podium compare`)"
        raise PodiumError(f"run {run.id}: is of competition {rules.name}, not of {competition}; {cure}")
    if host and host not in list(Host):
        raise PodiumError(f"host {host}: no such host; choose one of {', '.join(Host)}")


def _submit_locally(
    writer: Writer, offer: Offer, rules: Competition, description: str, reveal: bool, again: bool
) -> Submission:
    workspace, console, run = writer.workspace, writer.console, offer.run
    local_host = LocalHost(workspace.local_host(rules.kaggle_slug), rules)
    with writer.journal.begun(**_intent_of(workspace, offer, rules, Host.LOCAL, description)) as intent:
        try:
            receipt = local_host.submit(
                offer.path,
                run=run.id,
                experiment=run.experiment,
                description=description,
                reveal=reveal,
                again=again,
                kernel=offer.kernel,
            )
        except PodiumError:
            intent.strike()  # nothing was entered
            raise
        if receipt.is_former:
            return _show_former(writer, local_host, receipt, offer, rules, reveal, intent)
        submission = local_submission(rules, receipt)
        entered = writer.write(run, submission, intent)
        _print_leaderboard(local_host.leaderboard(reveal=reveal), run, rules, console)
        _print_receipt(receipt, run, rules, console)
        writer.finish(run, submission, entered, intent)
    return submission


def _show_former(
    writer: Writer,
    local_host: LocalHost,
    receipt: Receipt,
    offer: Offer,
    rules: Competition,
    reveal: bool,
    intent: OpenIntent,
) -> Submission:
    """An earlier submission of the same, which its run keeps with the private scores where they are shown now."""
    owner = find_submitter(writer.workspace, receipt.line.experiment, receipt.line.run)
    submission = local_submission(rules, receipt)
    stored = read_submissions(owner.submissions_file) if owner else []
    if former := next((known for known in stored if known.address == submission.address), None):
        submission = replace(former, private=submission.private or former.private)
    entered = writer.write(owner, submission, intent) if owner else None
    former_one = Former(submission, receipt.line.run, owner)
    writer.say(former_one.describe(offer, rules, is_code=False))
    if reveal:
        _print_leaderboard(local_host.leaderboard(reveal=True), owner or offer.run, rules, writer.console)
    if owner is None:
        intent.strike()
    else:
        writer.finish(owner, submission, entered, intent)
    return submission


def _print_leaderboard(rows: list[LeaderboardRow], run: Run, rules: Competition, console: Console) -> None:
    """The best rows and, wherever it stands, the run's own."""
    shown = [row for row in rows if row.place <= MAX_ROWS or row.run == run.id]
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
    print_table(console, columns, marked=[index for index, row in enumerate(shown) if row.run == run.id])
    if len(rows) > len(shown):
        console.print(f"... {len(rows)} rows in all", highlight=False)


def _print_receipt(receipt: Receipt, run: Run, rules: Competition, console: Console) -> None:
    facts = [
        f"ref {receipt.ref}" + (f", {run.trial}" if run.trial else ""),
        f"lb/public {rules.metric} {format_score(receipt.public[rules.metric])}",
        f"place {receipt.place} of {receipt.num_rows}",
        f"{receipt.remaining_today} of {rules.daily_limit} submissions left today",
    ]
    console.print("; ".join(facts), highlight=False, soft_wrap=True)
    if receipt.same_as is not None:
        console.print(f"(the same file as submission {receipt.same_as}, sent once more)", highlight=False)


def _submit_to_kaggle(
    writer: Writer,
    client: KaggleClient,
    offer: Offer,
    rules: Competition,
    message: str | None,
    again: bool,
    patience_seconds: float,
) -> Submission:
    workspace, console, slug = writer.workspace, writer.console, rules.kaggle_slug
    is_code = check_form(client, slug, offer.kernel)
    if offer.path.is_file() or not is_code:
        check_file(workspace, offer, rules)
    with ExitStack() as held:
        with writer.journal.choosing():
            former = None if again else _former_on_kaggle(writer, offer, rules, is_code=is_code)
            if former is not None and not former.is_pending:
                writer.say(former.describe(offer, rules, is_code=is_code))
                return former.submission
            facts = _intent_of(workspace, offer, rules, Host.KAGGLE, described(offer, message), is_code=is_code)
            if former is not None and former.here is not None:
                facts = intent_of(workspace, former.here, former.submission)
            intent = held.enter_context(writer.journal.begun(**facts))
        if former is not None and former.here is not None:
            run, submission = former.here, former.submission
            what = f"ref {submission.ref} was submitted at {submission.time} and is still waited for"
        else:
            run, submission = offer.run, _send(client, offer, rules, intent)
            what = f"submitted to {slug}: ref {submission.ref}"
            writer.write(run, submission, intent)
        console.print(what, highlight=False)
        submission = _scored(client, rules, submission, intent, patience_seconds)
        entered = writer.write(run, submission, intent)
        if submission.status is not Status.ERROR:
            score = format_score(submission.public.get(rules.metric))
            console.print(f"ref {submission.ref}; lb/public {rules.metric} {score}", highlight=False)
        writer.finish(run, submission, entered, intent)
    if submission.status is Status.ERROR:
        raise failure(slug, submission.ref, submission.error)
    return submission


def _former_on_kaggle(writer: Writer, offer: Offer, rules: Competition, *, is_code: bool) -> Former | None:
    """An earlier submission of the very same. Raises PodiumError where another process is sending it now."""
    at_work = writer.journal.others()  # read first: what ends in between stands on its run by then
    former = find_former(writer.workspace, offer, rules, is_code=is_code)
    for intent in at_work if former is None else []:
        if is_same(intent, offer, rules, is_code=is_code):
            cure = "wait for it, and submit again to see its score"
            who = f"process {intent.process} has been sending the same since {intent.time}"
            raise PodiumError(f"{rules.kaggle_slug}: {who}; {cure}")
    return former


def _send(client: KaggleClient, offer: Offer, rules: Competition, opened: OpenIntent) -> Submission:
    """Send it, once the intent says so; a kill between Kaggle's taking it and our line loses nothing then."""
    slug, intent = rules.kaggle_slug, opened.intent
    try:
        check_limit(client, slug)
        if intent.is_code:
            assert offer.kernel is not None
            _check_finished(client, offer.kernel)
        last_ref = max((submission.ref for submission in client.submissions(slug)), default=0)
    except BaseException:
        opened.strike()
        raise
    opened.note(status=Stage.SENDING, last_ref=last_ref)
    try:
        if intent.is_code:
            assert offer.kernel is not None
            ref = send_kernel(client, slug, offer.kernel, intent.description)
        else:
            ref = client.submit_file(slug, offer.path, intent.description)
    except KaggleError as error:
        if error.status is not None and 400 <= error.status < 500:
            opened.strike()  # refused: after any other error Kaggle may have taken it
        raise
    return replace(_new_submission(offer, rules, ref, intent.description), is_code=intent.is_code)


def _scored(
    client: KaggleClient, rules: Competition, submission: Submission, intent: OpenIntent, patience_seconds: float
) -> Submission:
    try:
        state = wait_for_score(client, submission.ref, rules.kaggle_slug, patience_seconds)
    except PodiumError:
        intent.strike()  # it stands on the run as pending, and submitting the same goes on waiting
        raise
    return replace(submission, **told_by_kaggle(state, rules))


def _check_finished(client: KaggleClient, version: KernelVersion) -> None:
    """Kaggle would refuse a version that has not ended well, in fewer words."""
    state = client.kernels.status(version)
    where, push = f"{version.kernel}: version {version.version}", f"make push K={version.kernel.slug}"
    if not state.is_over:
        raise PodiumError(f"{where} is {state.status}; wait for it: {push}")
    if state.status is not KernelStatus.COMPLETE:
        cure = f"correct it, push it and submit the new version: {push}"
        raise PodiumError(f"{where} ended as {state.status}; {cure}")


def _new_submission(offer: Offer, rules: Competition, ref: int, description: str) -> Submission:
    return Submission(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        host=Host.KAGGLE,
        competition=rules.name,
        ref=ref,
        description=description,
        sha256=offer.sha256,
        kernel=offer.kernel,
        status=Status.PENDING,
    )


def _intent_of(
    workspace: Workspace, offer: Offer, rules: Competition, host: Host, description: str, *, is_code: bool = False
) -> dict[str, Any]:
    """The fields of an intent to send an offer."""
    return {
        "run": run_name(workspace, offer.run.path),
        "host": host,
        "competition": rules.name,
        "sha256": offer.sha256,
        "description": description,
        "kernel": offer.kernel,
        "is_code": is_code,
    }


def _arrow(metric: str) -> str:
    return "↑" if METRICS[metric].greater_is_better else "↓"
