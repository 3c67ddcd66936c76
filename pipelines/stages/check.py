"""`podium kernel check`: a built kernel held against Kaggle's rules before it is pushed, one line a rule."""

from collections.abc import Iterator

from rich.console import Console

from pipelines.adapters.built_kernel import BuiltKernel, load_built_kernel
from pipelines.adapters.kaggle_client import KaggleClient
from pipelines.adapters.kaggle_rules import BAD, OK, RULES, UNKNOWN, Finding
from pipelines.config.kernel_file import KernelFile, load_kernel_file
from pipelines.config.workspace import Workspace
from pipelines.errors import PodiumError
from pipelines.tables import Column, print_table

MAX_SESSIONS = {"cpu": 5, "gpu": 2, "tpu": 1}


def check(
    workspace: Workspace, slug: str, *, is_offline: bool = False, console: Console | None = None
) -> list[Finding]:
    """Print every finding and return them. Raises `PodiumError` with the number of failures where there are any.

    Without credentials what only Kaggle knows is not checked, and a line says so.
    """
    console = console or Console(soft_wrap=True)
    kernel, file = load_built_kernel(workspace, slug), load_kernel_file(workspace, slug)
    findings = [finding for rule in RULES for finding in rule(kernel, file)]
    findings += list(_ask_kaggle(kernel, file, is_offline=is_offline))
    print_table(
        console,
        [
            Column("rule", [finding.rule for finding in findings]),
            Column("", [finding.state for finding in findings]),
            Column("what", [finding.words for finding in findings]),
        ],
    )
    num_bad = sum(finding.state == BAD for finding in findings)
    if num_bad:
        raise PodiumError(f"{slug}: {num_bad} of {len(findings)} checks failed; it would not pass on Kaggle")
    return findings


def _ask_kaggle(kernel: BuiltKernel, file: KernelFile, *, is_offline: bool) -> Iterator[Finding]:
    """Whose credentials, sources, this week's hours, and submissions left today."""
    if is_offline:
        yield Finding("account", UNKNOWN, "offline: sources of others, hours and submissions left were not asked for")
        return
    try:
        client = KaggleClient()
    except PodiumError as error:
        yield Finding("account", UNKNOWN, f"sources, hours and submissions left cannot be asked for: {error}")
        return
    yield from _check_account(client, kernel)
    yield from _check_sources(client, kernel)
    yield from _check_hours(client, file)
    yield from _check_competitions(client, kernel)


def _check_account(client: KaggleClient, kernel: BuiltKernel) -> Iterator[Finding]:
    if client.username and client.username != kernel.owner:
        cure = f"build it as {client.username}'s, or use {kernel.owner}'s credentials"
        yield Finding("account", BAD, f"credentials of {client.username}, kernel of {kernel.owner}; {cure}")
    else:
        yield Finding("account", OK, client.username or "signed in")


def _check_sources(client: KaggleClient, kernel: BuiltKernel) -> Iterator[Finding]:
    """Sources of others must be there: Kaggle runs a kernel without those that are not, and says little."""
    own = {dataset.dataset for dataset in kernel.datasets}
    for source in kernel.metadata["dataset_sources"]:
        if source not in own:
            found = client.datasets.current(source)
            words = "" if found else ": not there, or not to be seen by you; correct dataset_sources"
            yield Finding("source", OK if found else BAD, f"dataset {source}{words}")
    for source in kernel.metadata["kernel_sources"]:
        found_kernel = client.kernels.current(source)
        words = "" if found_kernel else ": not there yet; push it first, or build without --resume"
        yield Finding("source", OK if found_kernel else BAD, f"kernel {source}{words}")


def _check_hours(client: KaggleClient, file: KernelFile) -> Iterator[Finding]:
    """This week's hours against the most that this run may take."""
    quota, sessions = client.quota().get(file.kind.upper()), f"{MAX_SESSIONS[file.kind]} sessions at once"
    if quota is None:
        yield Finding("hours", OK, f"{file.kind} has no weekly quota; {sessions}")
        return
    left = quota.left.total_seconds() / 3600
    renewed = f"; renewed {quota.renewed:%Y-%m-%d %H:%M} UTC" if quota.renewed else ""
    if left < file.time_limit_hours:
        words = f"{left:.1f} h of {file.kind} left, the kernel may take {file.time_limit_hours:g}{renewed}"
        yield Finding("hours", BAD, f"{words}: lower time_limit_hours, or wait")
    else:
        yield Finding("hours", OK, f"{left:.1f} h of {file.kind} left; {sessions}")


def _check_competitions(client: KaggleClient, kernel: BuiltKernel) -> Iterator[Finding]:
    for slug in kernel.metadata["competition_sources"]:
        try:
            rules, limits = client.rules(slug), client.submission_limits(slug)
        except PodiumError as error:
            yield Finding("submissions", BAD, str(error))
            continue
        if not rules.has_entered and limits.num_total == 0:
            yield Finding("submissions", BAD, f"{slug}: not joined; accept its rules on its page")
        elif limits.num_allowed_now == 0:
            words = f"{slug}: none left today ({limits.num_today} used); wait until 00:00 UTC"
            yield Finding("submissions", BAD, words)
        else:
            yield Finding("submissions", OK, f"{slug}: {limits.num_allowed_now} left today")
