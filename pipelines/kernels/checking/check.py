"""`podium kernel check`: a built kernel held against Kaggle's rules before it is pushed, one line a rule."""

from rich.console import Console

from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient
from pipelines.kaggle.retries import Retries
from pipelines.kernels.built_kernel import BuiltKernel, load_built_kernel
from pipelines.kernels.checking.account_rules import Question, ask_kaggle, hold_against_rules
from pipelines.kernels.checking.rules import Finding, FindingState
from pipelines.kernels.kernel_file import KernelFile, load_kernel_file
from pipelines.screen import Column, print_table
from pipelines.workspace import Workspace


def check(
    workspace: Workspace,
    slug: str,
    *,
    is_offline: bool = False,
    retries: Retries | None = None,
    console: Console | None = None,
) -> list[Finding]:
    """Print every finding and return them. Raises `PodiumError` with the number of failures where there are any.

    Without credentials what only Kaggle knows is not checked, and a line says so.
    """
    console = console or Console(soft_wrap=True)
    kernel, file = load_built_kernel(workspace, slug), load_kernel_file(workspace, slug)
    findings = hold_against_rules(kernel, file)
    if is_offline:
        findings.append(_not_asked("offline: sources of others, hours and submissions left were not asked for"))
    else:
        findings += _ask_kaggle(workspace, kernel, file, retries)
    print_table(
        console,
        [
            Column("rule", [finding.rule for finding in findings]),
            Column("", [finding.state for finding in findings]),
            Column("what", [finding.words for finding in findings]),
        ],
    )
    num_bad = sum(finding.state is FindingState.WRONG for finding in findings)
    if num_bad:
        raise PodiumError(f"{slug}: {num_bad} of {len(findings)} checks failed; it would not pass on Kaggle")
    return findings


def _ask_kaggle(workspace: Workspace, kernel: BuiltKernel, file: KernelFile, retries: Retries | None) -> list[Finding]:
    try:
        client = KaggleClient(retries)
    except PodiumError as error:
        return [_not_asked(f"sources, hours and submissions left cannot be asked for: {error}")]
    return ask_kaggle(Question(workspace, client, kernel, file, client.kernels.current(kernel.kernel)))


def _not_asked(words: str) -> Finding:
    return Finding("account", FindingState.NOT_CHECKED, words)
