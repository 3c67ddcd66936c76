"""`podium push`: a built kernel onto Kaggle, once; its log as it comes, its output, and a true exit code.

Order matters: a kernel mounts the newest ready version of a dataset, so datasets go first and are waited for.
"""

from rich.console import Console

from pipelines.addresses import KernelName, KernelVersion
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.errors import SITE, KaggleError, cure_of
from pipelines.kaggle.kernels import KernelState, KernelStatus, LogLine, SavedKernel, is_same_code, missing_sources
from pipelines.kaggle.retries import Retries
from pipelines.kernels.built_kernel import BuiltKernel, load_built_kernel
from pipelines.kernels.checking.account_rules import BUDGET, Question, ask_kaggle, hold_against_rules
from pipelines.kernels.checking.rules import FindingState
from pipelines.kernels.kernel_file import load_kernel_file
from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.pushes import PulledOutput, Push, PushLog, last_words
from pipelines.kernels.pushing.watch import watch
from pipelines.screen import Column, format_bytes, print_table
from pipelines.workspace import Workspace

# Kaggle stops a session after twelve hours; some wait for a machine before that.
PATIENCE_SECONDS = 14 * 3600.0


def push(
    workspace: Workspace,
    name: str,
    *,
    wait: bool = False,
    again: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
    retries: Retries | None = None,
    console: Console | None = None,
) -> Push:
    """Upload the datasets that changed, push the kernel unless this very content was, and return the push.

    Before anything is sent it is held against Kaggle's rules, as by `podium kernel check`. With `wait` its log is shown
    as it comes and its output pulled; raises `PodiumError` where it does not end well. `again` pushes the same content
    once more.
    """
    console = console or Console()
    built = load_built_kernel(workspace, name)
    client = KaggleClient(retries)
    _check_owner(client, built)
    log = PushLog(workspace, built.kernel.slug)
    saved = client.kernels.current(built.kernel)
    done = None if again else _pushed_before(client, built, log, saved)
    if done is not None:
        _say(console, f"{built.kernel}: version {done.entry.version} is this very content; it is not pushed twice")
        if done.status.has_failed or not wait:
            return _told(done, built, console)
    else:
        _hold_against_rules(Question(workspace, client, built, load_kernel_file(workspace, name), saved))
        datasets = _upload_datasets(client, built, console)
        version = client.kernels.push(built.folder, saved, timeout_seconds=built.manifest.timeout_seconds)
        done = log.add(built, version.version, datasets)
        _say(console, f"{built.kernel}: version {version.version} pushed; {SITE}/code/{built.kernel}")
    if wait:
        _wait(client, built, log, done.version, patience_seconds, console)
    return log.find(version=done.entry.version) or done


def status(
    workspace: Workspace,
    name: str,
    *,
    version: int | None = None,
    retries: Retries | None = None,
    console: Console | None = None,
) -> KernelState:
    """Print how a pushed version (the newest) fares, and return it."""
    console = console or Console()
    built = load_built_kernel(workspace, name)
    client = KaggleClient(retries)
    chosen = _chosen_version(client, built, PushLog(workspace, built.kernel.slug), version)
    state = client.kernels.status(chosen)
    _say(
        console,
        f"{built.kernel}: version {chosen.version} is {state.status}{f': {state.message}' if state.message else ''}",
    )
    return state


def pull(
    workspace: Workspace,
    name: str,
    *,
    version: int | None = None,
    retries: Retries | None = None,
    console: Console | None = None,
) -> PulledOutput:
    """Fetch the output of a pushed version (the newest), also of one that failed: what it left and its log."""
    console = console or Console()
    built = load_built_kernel(workspace, name)
    client = KaggleClient(retries)
    log = PushLog(workspace, built.kernel.slug)
    chosen = _chosen_version(client, built, log, version)
    state = client.kernels.status(chosen)
    if not state.is_over:
        cure = f"wait for it with: make push K={name}"
        raise PodiumError(f"{built.kernel}: version {chosen.version} is {state.status}; {cure}")
    log.note(chosen.version, state)
    return _pull(client, built, log, chosen, console)


def _check_owner(client: KaggleClient, built: BuiltKernel) -> None:
    owner = built.kernel.owner
    if owner.lower() != client.username.lower():
        cure = f"build it as {client.username}/{built.kernel.slug}, or sign in as {owner}"
        raise PodiumError(f"{built.kernel}: is {owner}'s, but the credentials are {client.username}'s; {cure}")


def _hold_against_rules(question: Question) -> None:
    """Refuse what would not pass; today's submissions may all be used, for a push costs none."""
    findings = hold_against_rules(question.kernel, question.file) + ask_kaggle(question)
    bad = [finding for finding in findings if finding.state is FindingState.WRONG and finding.rule != BUDGET]
    if bad:
        slug = question.kernel.kernel.slug
        more = f"; {len(bad) - 1} more: podium kernel check {slug}" if len(bad) > 1 else ""
        raise PodiumError(f"{slug}: not pushed: {bad[0].rule}: {bad[0].words}{more}")


def _pushed_before(client: KaggleClient, built: BuiltKernel, log: PushLog, saved: SavedKernel | None) -> Push | None:
    """The push of this very content, from this checkout or from another one, as Kaggle itself has it."""
    if saved is None:
        return None
    push = log.find(digest=built.manifest.digest)
    if push is not None:
        is_gone = 0 < saved.version < push.entry.version  # the kernel was deleted and begun anew
        return None if is_gone else push
    if log.find(version=saved.version) is not None:
        return None  # pushed from here with other content, though perhaps the same code
    if not is_same_code(saved.source, built.code_file.read_text(encoding="utf-8")) or not _has_sources(built, saved):
        return None
    versions = {}
    for dataset in built.datasets:
        now = client.datasets.current(dataset.name)
        if now is None or now.digest != dataset.digest:
            return None
        versions[dataset.name] = now.version
    return log.add(built, saved.version, versions)


def _has_sources(built: BuiltKernel, saved: SavedKernel) -> bool:
    """Whether the saved version mounts what the built one names: a source that it lacks made its push a failure."""
    return not any(missing_sources(built.metadata, saved.sources).values())


def _upload_datasets(client: KaggleClient, built: BuiltKernel, console: Console) -> dict[KernelName, int]:
    versions = {}
    for dataset in built.datasets:
        before = client.datasets.current(dataset.name)
        if before is not None and before.digest == dataset.digest and before.status not in ("FAILED", "DELETED"):
            versions[dataset.name] = before.version
            continue
        versions[dataset.name] = client.datasets.upload(dataset.folder, dataset.digest, before)
        _say(console, f"{dataset.name}: version {versions[dataset.name]} uploaded")
    for name, version in versions.items():
        client.datasets.wait_until_ready(name, version)
    return versions


def _wait(
    client: KaggleClient,
    built: BuiltKernel,
    log: PushLog,
    version: KernelVersion,
    patience_seconds: float,
    console: Console,
) -> None:
    lines: list[LogLine] = []

    def show(line: LogLine) -> None:
        lines.append(line)
        console.out(line.text, end="", highlight=False)

    try:
        state = watch(client.kernels, version, show, retries=client.retries, patience_seconds=patience_seconds)
    except KeyboardInterrupt:
        cure = f"go on waiting with: make push K={built.kernel.slug}"
        raise PodiumError(f"{built.kernel}: version {version.version} runs on without being watched; {cure}") from None
    log.note(version.version, state)
    if state.status is not KernelStatus.COMPLETE:
        raise _failure(version, state, last_words(lines))
    _pull(client, built, log, version, console)


def _failure(version: KernelVersion, state: KernelState, said: str) -> KaggleError:
    where, slug = f"{version.kernel}: version {version.version}", version.kernel.slug
    if state.status is KernelStatus.CANCEL_ACKNOWLEDGED:
        cause = "by hand, by a newer push, or at the time limit"
        return KaggleError(f"{where} was cancelled ({cause}); push it again: make push K={slug} AGAIN=1")
    words = "; ".join(text for text in (state.message, said) if text) or "Kaggle says no more"
    otherwise = f"rehearse it here (make rehearse K={slug}), correct it and push again"
    return KaggleError(f"{where} failed: {words}; {cure_of(words, otherwise)}")


def _told(push: Push, built: BuiltKernel, console: Console) -> Push:
    """A push of before that went wrong is no success now."""
    if push.status.has_failed:
        raise PodiumError(
            f"{built.kernel}: version {push.entry.version} ended as {push.status} "
            f"({push.entry.message or 'Kaggle says no more'}); change it, or push the same again: "
            f"make push K={built.kernel.slug} AGAIN=1"
        )
    return push


def _chosen_version(client: KaggleClient, built: BuiltKernel, log: PushLog, version: int | None) -> KernelVersion:
    if version is not None:
        return KernelVersion(built.kernel, version)
    newest = log.find()
    if newest is not None:
        return KernelVersion(built.kernel, newest.entry.version)
    saved = client.kernels.current(built.kernel)
    if saved is None:
        raise PodiumError(f"{built.kernel}: was never pushed; push it with: make push K={built.kernel.slug}")
    return KernelVersion(built.kernel, saved.version)


def _pull(
    client: KaggleClient, built: BuiltKernel, log: PushLog, version: KernelVersion, console: Console
) -> PulledOutput:
    pulled = log.pull(client.kernels, version)
    names = sorted(pulled.files)
    sizes = [format_bytes((pulled.folder / name).stat().st_size) for name in names]
    print_table(console, [Column("file", names), Column("size", sizes, is_number=True)])
    _say(console, f"{built.kernel}: version {version.version} has left {len(names)} files in {pulled.folder}")
    is_training = built.manifest.mode is KernelMode.TRAIN
    step = f"podium runs import {pulled.folder}" if is_training else f"make submit K={built.kernel.slug}"
    _say(console, f"next: {step}")
    return pulled


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
