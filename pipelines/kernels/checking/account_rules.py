"""What Kaggle alone knows of a kernel to come: whose account, what is there already, its sources, hours and sessions.

Each rule asks Kaggle and yields findings, as those of `rules` do without asking.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.errors import SITE, KaggleError
from pipelines.kaggle.kernels import SavedKernel
from pipelines.kernels.built_kernel import BuiltKernel
from pipelines.kernels.checking.rules import RULES, Finding, FindingState, is_model_version, is_source
from pipelines.kernels.kernel_file import KernelFile
from pipelines.kernels.kinds import Machine
from pipelines.kernels.pushes import Push, running_pushes
from pipelines.workspace import Workspace

MAX_SESSIONS = {Machine.CPU: 5, Machine.GPU: 2, Machine.TPU: 1}
BUDGET = "submissions"


@dataclass(frozen=True)
class Question:
    """A built kernel, who asks about it, and what Kaggle has of it already (None: nothing)."""

    workspace: Workspace
    client: KaggleClient
    kernel: BuiltKernel
    file: KernelFile
    saved: SavedKernel | None


Rule = Callable[[Question], Iterator[Finding]]


def check_account(question: Question) -> Iterator[Finding]:
    """Only its owner can push a kernel."""
    user, owner = question.client.username, question.kernel.kernel.owner
    if user and user.lower() != owner.lower():
        yield _bad("account", f"credentials of {user}, kernel of {owner}; build it as {user}'s, or use {owner}'s")
    else:
        yield _ok("account", user or "signed in")


def check_slug(question: Question) -> Iterator[Finding]:
    """A slug that is taken stays what it was begun as."""
    kernel, saved = question.kernel, question.saved
    wanted = kernel.metadata.kernel_type
    if saved is None:
        yield _ok("slug", f"{kernel.kernel} is free")
    elif saved.kind not in ("", wanted):
        yield _bad("slug", f"{kernel.kernel} is a {saved.kind} on Kaggle and stays one; choose another slug")
    else:
        yield _ok("slug", f"{kernel.kernel} has {saved.version} versions; a push makes the next")


def check_sources(question: Question) -> Iterator[Finding]:
    """Sources of others must be there: Kaggle runs a kernel without those that are not, and says little.

    Those that are no addresses are `check_metadata`'s.
    """
    client, metadata = question.client, question.kernel.metadata
    own = {str(dataset.name) for dataset in question.kernel.datasets}
    for source in filter(is_source, metadata.dataset_sources):
        if source not in own:
            found = client.datasets.current(KernelName.of_source(source)) is not None
            yield _source("dataset", source, found, "correct dataset_sources")
    for source in filter(is_source, metadata.kernel_sources):
        is_own = source == str(question.kernel.kernel)
        found = (question.saved if is_own else client.kernels.current(KernelName.of_source(source))) is not None
        yield _source(
            "kernel", source, found, "push it first, or build without --resume" if is_own else "push it first"
        )
    for source in filter(is_model_version, metadata.model_sources):
        newest, version = client.model_version(source), int(source.rsplit("/", 1)[1])
        cure = f"its newest version is {newest}" if newest else "correct model_sources"
        yield _source("model", source, newest is not None and version <= newest, cure)


def check_competitions(question: Question) -> Iterator[Finding]:
    """A competition's files are mounted for who has joined it; the budget is today's."""
    client = question.client
    for slug in question.kernel.metadata.competition_sources:
        try:
            rules, limits = client.rules(slug), client.submission_limits(slug)
        except PodiumError as error:
            yield _bad("rules", str(error))
            continue
        if not rules.has_entered and limits.num_total == 0:
            yield _bad("rules", f"{slug}: not joined; accept its rules at {SITE}/competitions/{slug}/rules")
        elif limits.num_allowed_now == 0:
            yield _bad(BUDGET, f"{slug}: none left today ({limits.num_today} used); wait until 00:00 UTC")
        else:
            yield _ok(BUDGET, f"{slug}: {limits.num_allowed_now} left today")


def check_hours(question: Question) -> Iterator[Finding]:
    """This week's hours against the most that this run may take."""
    kind, wanted = question.file.kind, question.file.time_limit_hours
    quota = None if kind is Machine.CPU else question.client.quota().get(kind.upper())
    if quota is None:
        yield _ok("hours", f"{kind} has no weekly quota")
        return
    left = quota.left.total_seconds() / 3600
    renewed = f"; renewed {quota.renewed:%Y-%m-%d %H:%M} UTC" if quota.renewed else ""
    if left < wanted:
        words = f"{left:.1f} h of {kind} left, the kernel may take {wanted:g}{renewed}"
        yield _bad("hours", f"{words}: lower time_limit_hours, or wait")
    else:
        yield _ok("hours", f"{left:.1f} h of {kind} left")


def check_sessions(question: Question) -> Iterator[Finding]:
    """How many kernels of this kind run at once; those that other checkouts pushed show only at the push."""
    kind, client = question.file.kind, question.client
    # A former version of this kernel ends when the new one is pushed.
    others = [push for push in running_pushes(question.workspace, kind) if push.entry.kernel != question.kernel.kernel]
    running = [f"{push.entry.kernel} version {push.entry.version}" for push in others if _is_running(client, push)]
    words = f"{len(running)} of {MAX_SESSIONS[kind]} on {kind} run that were pushed from here"
    if len(running) >= MAX_SESSIONS[kind]:
        yield _bad(
            "sessions", f"{words} ({', '.join(running)}); wait, or stop one under View Active Events at {SITE}/code"
        )
    else:
        yield _ok("sessions", words)


ACCOUNT_RULES: tuple[Rule, ...] = (
    check_account,
    check_slug,
    check_sources,
    check_competitions,
    check_hours,
    check_sessions,
)


def hold_against_rules(kernel: BuiltKernel, file: KernelFile) -> list[Finding]:
    """What can be found without asking Kaggle."""
    return [finding for rule in RULES for finding in rule(kernel, file)]


def ask_kaggle(question: Question) -> list[Finding]:
    """What Kaggle says of it."""
    return [finding for rule in ACCOUNT_RULES for finding in rule(question)]


def _is_running(client: KaggleClient, push: Push) -> bool:
    try:
        return not client.kernels.status(push.version).is_over
    except KaggleError as error:
        if error.status in (403, 404):  # deleted since
            return False
        raise


def _source(kind: str, name: str, is_found: bool, cure: str) -> Finding:
    words = "" if is_found else f": not there, or not to be seen by you; {cure}"
    return Finding("source", FindingState.OK if is_found else FindingState.WRONG, f"{kind} {name}{words}")


def _ok(rule: str, words: str) -> Finding:
    return Finding(rule, FindingState.OK, words)


def _bad(rule: str, words: str) -> Finding:
    return Finding(rule, FindingState.WRONG, words)
