"""Kaggle through its official client: what a competition's files, submissions and scores need, and nothing printed.

The client is imported inside the constructor only: importing it authenticates, prints a help text and makes a folder
in the user's home. Its errors leave here as `PodiumError`s that say what to do; a credential never does.
"""

import contextlib
import errno
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import PodiumError

SITE = "https://www.kaggle.com"
TOKEN_CURE = (
    f'make a token at {SITE}/settings/api ("Generate New Token") and save it as ~/.kaggle/access_token '
    "(chmod 600), or set KAGGLE_API_TOKEN"
)
PAGE_SIZE = 200


@dataclass(frozen=True)
class CompetitionFile:
    """One file of a competition's data, with its size in bytes."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class SubmissionLimits:
    """Submissions made and still allowed today (UTC); all zero for who has not joined the competition."""

    num_today: int
    num_total: int
    num_allowed_now: int


@dataclass(frozen=True)
class KaggleSubmission:
    """A submission's state: PENDING, COMPLETE or ERROR; scores are None until Kaggle shows them."""

    ref: int
    status: str
    public: float | None
    private: float | None
    error: str
    description: str = ""


class KaggleClient:
    """A signed-in client. Raises `PodiumError` without credentials, or when Kaggle refuses or cannot be reached."""

    def __init__(self) -> None:
        with _quiet(), _no_new_folder():
            try:
                import requests
                from kaggle.api.kaggle_api_extended import KaggleApi
                from kagglesdk.competitions.types import competition_api_service
            except ImportError as error:
                raise PodiumError(f"kaggle: the client cannot be imported ({error}); run: make setup") from None
            self._api: Any = KaggleApi()
            self._types: Any = competition_api_service
            self._http_error: type[Exception] = requests.RequestException
            try:
                self._api.authenticate()
            except SystemExit:
                raise PodiumError(_missing_credentials()) from None
            except requests.RequestException as error:
                raise self._explained(error, "kaggle") from None

    def list_files(self, slug: str) -> list[CompetitionFile]:
        """The data files of a competition, from all pages of the answer."""
        files: list[CompetitionFile] = []
        page_token = None
        while page_token != "":
            with self._talking(slug):
                page = self._api.competition_list_files(slug, page_token=page_token, page_size=PAGE_SIZE)
            files += [CompetitionFile(file.name, file.total_bytes) for file in page.files or []]
            page_token = page.next_page_token or ""
        return files

    def download_competition(self, slug: str, folder: Path) -> list[Path]:
        """Fetch and unpack all files of a competition into `folder`; return them, sorted.

        They appear there only when all have arrived. Files of the same name are replaced, others stay. An interrupted
        download leaves its part beside `folder`, and the next call resumes it. Raises `PodiumError` for rules that are
        not accepted (403), an unknown competition (404), a damaged archive and a full disk.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        part, unpacked = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.unpacked")
        try:
            with self._talking(slug, is_progress_shown=True):
                self._api.competition_download_files(slug, path=str(part), quiet=not sys.stderr.isatty())
            shutil.rmtree(unpacked, ignore_errors=True)
            _unpack(part / f"{slug}.zip", unpacked)
            files = _move_in(unpacked, folder)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise PodiumError(f"{folder}: the disk is full; free some space and run the download again") from None
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(part)
        return files

    def submission_limits(self, slug: str) -> SubmissionLimits:
        """How many submissions today still allows."""
        with self._talking(slug):
            limits = self._api.competition_get_submission_limits(slug)
        return SubmissionLimits(limits.num_today, limits.num_total, limits.num_allowed_now)

    def submit_file(self, slug: str, path: Path, message: str) -> int:
        """Upload a file as a submission and return its ref; Kaggle scores it later (`submission`)."""
        with self._talking(slug):
            answer = self._api.competition_submit(str(path), message, slug, quiet=True)
        # Up to 2.2.4 the client only prints that an upload failed; what it returns then has no ref.
        if not answer.ref:
            raise PodiumError(f"{path}: the upload to {slug} failed ({answer.message}); try again in a minute")
        return int(answer.ref)

    def submission(self, ref: int) -> KaggleSubmission:
        """One submission's state; PENDING too while Kaggle does not know it yet (404 in its first seconds)."""
        request = self._types.ApiGetSubmissionRequest()
        request.ref = ref
        try:
            with _quiet(), self._api.build_kaggle_client() as kaggle:
                return _as_submission(kaggle.competitions.competition_api_client.get_submission(request))
        except self._http_error as error:
            if _status(error) == 404:
                return KaggleSubmission(ref, "PENDING", None, None, "")
            raise self._explained(error, f"submission {ref}") from None

    def submissions(self, slug: str) -> list[KaggleSubmission]:
        """The newest submissions of a competition (one page), newest first."""
        with self._talking(slug):
            found = self._api.competition_submissions(slug, page_size=PAGE_SIZE)
        return [_as_submission(submission) for submission in found or []]

    @contextlib.contextmanager
    def _talking(self, slug: str, *, is_progress_shown: bool = False) -> Iterator[None]:
        try:
            with _quiet(is_progress_shown=is_progress_shown):
                yield
        except self._http_error as error:
            raise self._explained(error, slug) from None

    def _explained(self, error: Exception, what: str) -> PodiumError:
        status, said = _status(error), " ".join(str(error).split())
        match status:
            case None:
                return PodiumError(f"{what}: Kaggle cannot be reached ({type(error).__name__}); check the network")
            case 401:
                return PodiumError(f"{what}: Kaggle does not accept your credentials (401); {TOKEN_CURE}")
            case 403:
                rules = f"{SITE}/competitions/{what}/rules"
                return PodiumError(f"{what}: Kaggle refuses (403: {said}); accept the competition's rules at {rules}")
            case 404:
                cure = f"take the slug from the address of its page, {SITE}/competitions/<slug>"
                return PodiumError(f"{what}: Kaggle knows no such competition (404); {cure}")
            case 429:
                return PodiumError(f"{what}: too many requests (429); wait a few minutes and try again")
        cure = "try again later" if status >= 500 else "correct what it says"
        return PodiumError(f"{what}: Kaggle answered {status}: {said}; {cure}")


def _status(error: Exception) -> int | None:
    """The HTTP status of an error; a JSON body with a `code` overrules it, for Kaggle sends some errors as 200."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return int(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return int(response.status_code)


def _as_submission(answer: Any) -> KaggleSubmission:  # noqa: ANN401  (a class of the client, which is not imported here)
    return KaggleSubmission(
        ref=answer.ref,
        status=answer.status.name,
        public=_as_score(answer.public_score),
        private=_as_score(answer.private_score),
        error=answer.error_description or "",
        description=answer.description or "",
    )


def _as_score(text: str | None) -> float | None:
    """Scores travel as strings, empty while hidden."""
    return float(text) if text else None


def _missing_credentials() -> str:
    """Names where a token was found, never the token."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    token, source = get_access_token_from_env()
    if token:
        where = "KAGGLE_API_TOKEN" if source == "KAGGLE_API_TOKEN" else "~/.kaggle/access_token"
        return f"kaggle: the token in {where} is not valid (expired or revoked?); {TOKEN_CURE}"
    return f"kaggle: no credentials found; {TOKEN_CURE}"


@contextlib.contextmanager
def _quiet(*, is_progress_shown: bool = False) -> Iterator[None]:
    """The client prints help, warnings and errors; whatever matters of it is raised. Its progress bar is on stderr."""
    hidden = io.StringIO()
    errors = contextlib.nullcontext() if is_progress_shown else contextlib.redirect_stderr(hidden)
    with contextlib.redirect_stdout(hidden), errors:
        yield


@contextlib.contextmanager
def _no_new_folder() -> Iterator[None]:
    """Importing the client makes its configuration folder; one that was not there and stays empty goes again."""
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folders = [Path.home() / ".kaggle", config_home / "kaggle"]
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(os.environ["KAGGLE_CONFIG_DIR"]))
    absent = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in absent:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _unpack(archive: Path, folder: Path) -> None:
    """Unzip, and unzip what lies zipped inside (`train.csv.zip`), so that only plain files are left."""
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        for nested in sorted(folder.rglob("*.csv.zip")):
            with zipfile.ZipFile(nested) as content:
                content.extractall(nested.parent)
            nested.unlink()
    except (zipfile.BadZipFile, FileNotFoundError):
        shutil.rmtree(archive.parent, ignore_errors=True)
        raise PodiumError(f"{archive.name}: the archive arrived damaged; run the download again") from None


def _move_in(source: Path, folder: Path) -> list[Path]:
    """A new folder appears in one step; into one that exists, each file does."""
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    if not folder.exists():
        source.rename(folder)
    else:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(folder / name)
    return [folder / name for name in names]
