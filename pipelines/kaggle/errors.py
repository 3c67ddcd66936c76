"""What Kaggle says and what to do about it: one table of its messages, one line for every error that leaves the client.

`docs/kaggle.md` explains the same messages at length; a test holds the two together.
"""

import re
from dataclasses import dataclass
from typing import Literal

from requests import RequestException

from pipelines.errors import PodiumError

SITE = "https://www.kaggle.com"
TOKEN_CURE = (
    f'make a token at {SITE}/settings/api ("Generate New Token") and save it as ~/.kaggle/access_token '
    "(chmod 600), or set KAGGLE_API_TOKEN"
)
Kind = Literal["competition", "kernel", "dataset", "model", "submission", "account"]


class KaggleError(PodiumError):
    """Kaggle refused or could not be reached; `status` is its HTTP status, None where no answer came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DamagedDownload(RequestException):
    """A file that arrived short or altered; fetched again it may be whole."""


@dataclass(frozen=True)
class Subject:
    """What a call is about: a competition's slug, `owner/slug` of a kernel or dataset, a submission's ref."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Saying:
    """Words of Kaggle's (a regular expression, whatever the case), what they mean in one word, and the cure."""

    pattern: str
    name: str
    cure: str


# The first that is found decides.
SAYINGS = (
    Saying(
        r"maximum batch .*session count",
        "session limit",
        f"wait until a running kernel ends, or stop one under View Active Events at {SITE}/code, then push again",
    ),
    Saying(
        r"quota",
        "quota",
        "wait until the weekly hours are renewed (Saturday 00:00 UTC), or set accelerator: none in kernel.yaml",
    ),
    Saying(
        r"less than 1 megabytes",
        "too large",
        "let the source travel as a code dataset: `podium kernel build` makes one beyond 1 MB",
    ),
    Saying(
        r"notebook not found",
        "not found",
        "look at the kernel's page: a deleted kernel keeps its slug, so choose another slug in kernel.yaml",
    ),
    Saying(
        r"internet",
        "internet",
        "write internet: false into kernel.yaml: the competition runs its kernels offline",
    ),
    Saying(
        r"cannot change .*type|kernel type", "kernel type", "choose another slug: a kernel keeps the type it began as"
    ),
    Saying(
        r"accept (the|this) competition.*rules",
        "rules",
        "accept them on the competition's page, under Rules, and try again",
    ),
    Saying(r"no kernel name found", "kernelspec", "build the kernel again: its notebook must name a kernelspec"),
    Saying(
        r"submission allowance|daily submission",
        "daily limit",
        "wait until midnight UTC",
    ),
    Saying(
        r"no module named",
        "missing package",
        "the image lacks a package: list it under wheels in kernel.yaml, and build and rehearse again",
    ),
    Saying(
        r"no such file or directory: '?/kaggle/input",
        "missing input",
        "a source is not attached or mounted elsewhere: `podium kernel check` compares them; push again",
    ),
    Saying(
        r"allocate more memory|out of memory|oomkilled",
        "memory",
        "lower the batch size of prediction, or load fewer folds at a time; `podium kernel rehearse` shows the peak",
    ),
    Saying(
        r"exceeded allowed compute",
        "Notebook Exceeded Allowed Compute",
        "the hidden test set needs more memory or disk: lower the batch size and rehearse with a larger test set",
    ),
    Saying(
        r"time ?limit|allowed execution",
        "time limit",
        "raise time_limit_hours in kernel.yaml (12 at most), or let it do less; a training saves before its limit",
    ),
    Saying(
        r"notebook timeout|timed out|timeout",
        "Notebook Timeout",
        "the hidden test set is larger: fewer folds, a shorter max_length, a smaller beam; see `podium kernel check`",
    ),
    Saying(
        r"notebook threw exception",
        "Notebook Threw Exception",
        "rehearse with hidden, larger and empty test sets (`podium kernel rehearse`): Kaggle shows no log of a rerun",
    ),
    Saying(
        r"submission csv not found|could not find .*submission",
        "Submission CSV Not Found",
        "the kernel must write submission.csv into /kaggle/working, whatever the test set: rehearse it",
    ),
    Saying(
        r"submission scoring error|must have .*(rows|columns)|evaluation|unable to parse|column|missing values",
        "Submission Scoring Error",
        "hold the file against sample_submission.csv: same columns, same ids, no empty cell, the same types",
    ),
    Saying(r"kaggle error|internal error", "Kaggle Error", "it is Kaggle's own: submit the same version once more"),
)


def saying_of(text: str) -> Saying | None:
    """The first of `SAYINGS` that is found in Kaggle's words."""
    return next((saying for saying in SAYINGS if re.search(saying.pattern, text, re.IGNORECASE)), None)


def cure_of(text: str, otherwise: str) -> str:
    """What helps against these words of Kaggle's."""
    saying = saying_of(text)
    return saying.cure if saying else otherwise


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error; a JSON body with a `code` overrules it, for Kaggle sends some errors as 200."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return int(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return int(response.status_code)


def explain(error: Exception, subject: Subject) -> KaggleError:
    """One line for an error of the client's: what was asked, what Kaggle answered, what to do."""
    status = status_of(error)
    if isinstance(error, DamagedDownload):
        what = f"{error}, and so each time; try again later"
    elif status is None:
        what = f"Kaggle cannot be reached ({type(error).__name__}); check the network"
    elif status == 401:
        what = f"Kaggle does not accept your credentials (401); {TOKEN_CURE}"
    elif status == 404:
        what = f"Kaggle knows no such {subject.kind} (404); {_cure_of_absence(subject)}"
    elif status == 429:
        what = f"too many requests (429){_asked_pause(error)}; wait a few minutes and try again"
    else:
        said = " ".join(str(error).split())
        verb = "refuses (403" if status == 403 else f"answered {status}"
        close = ")" if status == 403 else ""
        what = f"Kaggle {verb}: {said}{close}; {_cure_of_refusal(said, status, subject)}"
    return KaggleError(f"{subject.name}: {what}", status)


def retry_after(error: Exception) -> float | None:
    """The seconds a 429 asks to wait, where its header says so."""
    response = getattr(error, "response", None)
    try:
        return float(response.headers["Retry-After"])  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError):
        return None


def _asked_pause(error: Exception) -> str:
    seconds = retry_after(error)
    return f", Kaggle asks for {seconds:.0f} s of pause" if seconds else ""


def _cure_of_refusal(said: str, status: int, subject: Subject) -> str:
    if status == 403 and subject.kind == "competition":
        return f"accept the competition's rules at {SITE}/competitions/{subject.name}/rules"
    otherwise = "try again later" if status >= 500 else "correct what it says"
    if status == 403:
        otherwise = f"compare owner and slug with its page, {_page(subject)}, and with whose token you use"
    return cure_of(said, otherwise)


def _cure_of_absence(subject: Subject) -> str:
    if subject.kind == "competition":
        return f"take the slug from the address of its page, {SITE}/competitions/<slug>"
    return f"compare it with the address of its page, {_page(subject)}"


def _page(subject: Subject) -> str:
    folder = {"kernel": "code", "dataset": "datasets"}.get(subject.kind, "competitions")
    return f"{SITE}/{folder}/{subject.name}"
