"""Waiting for a kernel: its state decides, its log is shown as it comes, and neither a lost line nor a lost
connection ends the waiting.
"""

import time
from collections.abc import Callable

from pipelines.addresses import KernelVersion
from pipelines.kaggle.errors import SITE, KaggleError
from pipelines.kaggle.kernels import KaggleKernels, KernelState, KernelStatus, LogLine
from pipelines.kaggle.retries import Retries

# A version that was saved a moment ago may be unknown for some polls more.
NUM_UNKNOWN_POLLS = 6


def watch(
    kernels: KaggleKernels,
    version: KernelVersion,
    show: Callable[[LogLine], None],
    *,
    retries: Retries,
    patience_seconds: float,
) -> KernelState:
    """Return how a version ended, after `show` got every line of its log once.

    Raises `KaggleError` when it has not ended after `patience_seconds`, and for a version that Kaggle does not know.
    """
    deadline = time.monotonic() + patience_seconds
    num_shown = poll = num_unknown = 0
    while True:
        state, num_unknown = _state(kernels, version, num_unknown)
        if state.is_over:
            for line in kernels.log(version)[num_shown:]:
                show(line)
            return state
        if state.status is KernelStatus.RUNNING:
            num_new = _follow(kernels, version, show, num_shown)
            num_shown += num_new
            poll = 0 if num_new else poll
        if time.monotonic() >= deadline:
            raise KaggleError(
                f"{version.kernel}: version {version.version} is {state.status} after {patience_seconds:.0f} s of "
                f"waiting; see {SITE}/code/{version.kernel}, or push it once more to go on waiting: nothing is pushed "
                "twice"
            )
        poll += 1
        retries.sleep(retries.pause(poll))


def _state(kernels: KaggleKernels, version: KernelVersion, num_unknown: int) -> tuple[KernelState, int]:
    try:
        return kernels.status(version), 0
    except KaggleError as error:
        if error.status not in (403, 404) or num_unknown >= NUM_UNKNOWN_POLLS:
            raise
        return KernelState(KernelStatus.QUEUED), num_unknown + 1


def _follow(kernels: KaggleKernels, version: KernelVersion, show: Callable[[LogLine], None], num_shown: int) -> int:
    """Show what the stream holds beyond `num_shown` lines, for it begins anew each time; return how many they were."""
    num_new = 0
    try:
        for number, line in enumerate(kernels.follow_log(version)):
            if number >= num_shown:
                show(line)
                num_new += 1
    except KaggleError:
        pass  # the state is asked for again, and the whole log at the end
    return num_new
