"""A submission to Kaggle from the day's budget to its score: a file, or a kernel's version for a code competition."""

import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from pipelines.addresses import KernelVersion
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient, KaggleSubmission
from pipelines.kaggle.errors import SITE, KaggleError, saying_of
from pipelines.kaggle.retries import NUM_LOOKS


def check_limit(client: KaggleClient, slug: str) -> None:
    """Raise `PodiumError` where today (UTC) allows no submission more, or where one has not joined."""
    limits = client.submission_limits(slug)
    if limits.num_allowed_now > 0:
        return
    if limits.num_total == 0:
        raise PodiumError(f"{slug}: you have not joined: accept the rules at {SITE}/competitions/{slug}/rules")
    now = datetime.now(UTC)
    opens = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
    cure = f"Kaggle opens again at {opens:%Y-%m-%d %H:%M} UTC"
    raise PodiumError(f"{slug}: all submissions of today ({limits.num_today}) are used; {cure}")


def check_form(client: KaggleClient, slug: str, offer: KernelVersion | None) -> bool:
    """Whether kernels are submitted here rather than files; `PodiumError` where one is needed and none is offered."""
    is_code_competition = client.rules(slug).is_code_competition
    if is_code_competition and offer is None:
        raise PodiumError(
            f"{slug}: is a code competition: it takes a kernel's version and no file; push a kernel (make push K=…) "
            "and submit that: make submit K=…"
        )
    return is_code_competition


def send_kernel(client: KaggleClient, slug: str, offer: KernelVersion, description: str) -> int:
    """Submit a version and return the ref. A refusal says which button does the same, and how its score is recorded."""
    try:
        return client.submit_kernel(slug, offer, description)
    except KaggleError as error:
        if error.status != 403:
            raise
        raise KaggleError(
            f"{slug}: Kaggle takes no submission of {offer.kernel} by its API ({str(error).split('; ')[0]}); open "
            f"{SITE}/code/{offer.kernel}, choose Version {offer.version}, press Submit to Competition, and record what "
            f"it scores: podium submit --kernel {offer.kernel.slug} --version {offer.version} --ref REF --record SCORE",
            403,
        ) from None


def wait_for_score(client: KaggleClient, ref: int, slug: str, patience_seconds: float) -> KaggleSubmission:
    """Ask until a submission is scored or has failed. Raises `PodiumError` where it takes longer than that."""
    deadline, poll = time.monotonic() + patience_seconds, 1
    while (state := client.submission(ref)).status == "PENDING":
        left = deadline - time.monotonic()
        if left <= 0:
            where = f"see {SITE}/competitions/{slug}/submissions, or submit again to go on waiting"
            raise PodiumError(f"{slug}: submission {ref} has no score after {patience_seconds:.0f} s; {where}")
        client.retries.sleep(min(client.retries.pause(poll), left))
        poll += 1
    return state


def find_sent(
    client: KaggleClient, slug: str, *, description: str, last_ref: int, known: Collection[int], is_fresh: bool
) -> KaggleSubmission | None:
    """What Kaggle took of an intent whose answer nobody heard; None where it took nothing.

    It bears the description, is newer than `last_ref`, and is none of the `known` refs. Kaggle may list one only some
    seconds after it took it, so that for one that `is_fresh` it is asked a few times.
    """
    for look in range(1, (NUM_LOOKS if is_fresh else 1) + 1):
        found = [
            submission
            for submission in client.submissions(slug)
            if submission.description == description and submission.ref > last_ref and submission.ref not in known
        ]
        if found:
            return min(found, key=lambda submission: submission.ref)
        if is_fresh and look < NUM_LOOKS:
            client.retries.sleep(client.retries.pause(look))
    return None


def error_class(error: str) -> str:
    """Kaggle's own name for why a submission failed ("Notebook Timeout"), as far as its words tell."""
    saying = saying_of(error)
    return saying.name if saying else "unknown"


def failure(slug: str, ref: int, error: str) -> KaggleError:
    """What is raised about a submission that could not be scored."""
    words = error or "Kaggle says no more"
    saying = saying_of(words)
    return KaggleError(f"{slug}: submission {ref} failed: {words}" + (f"; {saying.cure}" if saying else ""))
