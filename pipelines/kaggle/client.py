"""Kaggle: what a competition's files, submissions and scores need; `kernels` and `datasets` hold the rest.

Nothing is printed. What goes wrong leaves here as one line that says what to do (`kaggle_errors`).
"""

import errno
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.addresses import KernelVersion
from pipelines.errors import PodiumError
from pipelines.kaggle.datasets import KaggleDatasets
from pipelines.kaggle.errors import SITE, KaggleError, Subject
from pipelines.kaggle.kernels import KaggleKernels
from pipelines.kaggle.retries import Retries
from pipelines.kaggle.session import KaggleSession, is_terminal

PAGE_SIZE = 200


@dataclass(frozen=True)
class CompetitionFile:
    """One file of a competition's data, with its size in bytes."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class CompetitionRules:
    """What Kaggle's page of a competition says that shapes a submission."""

    slug: str
    is_code_competition: bool
    max_daily_submissions: int
    has_entered: bool


@dataclass(frozen=True)
class SubmissionLimits:
    """Submissions made and still allowed today (UTC); all zero for who has not joined the competition."""

    num_today: int
    num_total: int
    num_allowed_now: int


@dataclass(frozen=True)
class Quota:
    """This week's hours of one kind of accelerator, and when they are renewed."""

    used: timedelta
    allowed: timedelta
    renewed: datetime | None

    @property
    def left(self) -> timedelta:
        return max(self.allowed - self.used, timedelta())


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

    def __init__(self, retries: Retries | None = None) -> None:
        self._session = KaggleSession(retries)
        self.kernels = KaggleKernels(self._session)
        self.datasets = KaggleDatasets(self._session)
        from kagglesdk.competitions.types import competition_api_service
        from kagglesdk.kernels.types import kernels_api_service

        self._types: Any = competition_api_service
        self._kernel_types: Any = kernels_api_service

    @property
    def username(self) -> str:
        """Whose credentials these are; theirs are the kernels and datasets that can be pushed."""
        return self._session.username

    @property
    def retries(self) -> Retries:
        """How patient this client is; whoever waits with it keeps the same pace."""
        return self._session.retries

    def quota(self) -> dict[str, Quota]:
        """This week's hours by accelerator, "GPU" and "TPU"."""
        request = self._kernel_types.ApiGetAcceleratorQuotaStatisticsRequest()
        answer = self._session.read(
            Subject("account", "quota"),
            lambda: self._session.send(
                lambda kaggle: kaggle.kernels.kernels_api_client.get_accelerator_quota_statistics, request
            ),
        )
        found = {"GPU": answer.gpu_quota, "TPU": answer.tpu_quota}
        return {
            name: Quota(quota.time_used, quota.total_time_allowed, answer.quota_refresh_time)
            for name, quota in found.items()
            if quota is not None
        }

    def model_version(self, source: str) -> int | None:
        """The newest version of a model variation (`owner/model/framework/variation/...`); None where there is none."""
        variation = "/".join(source.split("/")[:4])
        try:
            return int(
                self._session.read(
                    Subject("model", source), lambda: self._session.api.model_instance_get(variation)
                ).version_number
            )
        except KaggleError as error:
            if error.status in (403, 404):
                return None
            raise
        except KeyError:  # the client knows no such framework
            return None

    def rules(self, slug: str) -> CompetitionRules:
        """Whether kernels are submitted or files, how many a day, and whether one has joined."""
        request = self._types.ApiGetCompetitionRequest()
        request.competition_name = slug
        found = self._ask(slug, lambda kaggle: kaggle.competitions.competition_api_client.get_competition, request)
        return CompetitionRules(
            slug, found.is_kernels_submissions_only, found.max_daily_submissions, found.user_has_entered
        )

    def list_files(self, slug: str) -> list[CompetitionFile]:
        """The data files of a competition, from all pages of the answer."""
        files: list[CompetitionFile] = []
        page_token = None
        while page_token != "":
            page = self._read(slug, partial(self._list_page, slug, page_token))
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
            self._session.read(
                Subject("competition", slug),
                lambda: self._session.api.competition_download_files(slug, path=str(part), quiet=not is_terminal()),
                is_progress_shown=True,
            )
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
        limits = self._read(slug, lambda: self._session.api.competition_get_submission_limits(slug))
        return SubmissionLimits(limits.num_today, limits.num_total, limits.num_allowed_now)

    def submit_file(self, slug: str, path: Path, message: str) -> int:
        """Upload a file as a submission and return its ref; Kaggle scores it later (`submission`)."""
        answer = self._submit(slug, message, lambda: self._submit_file(slug, path, message))
        return int(answer.ref)

    def submit_kernel(
        self, slug: str, version: KernelVersion, message: str, *, file_name: str = "submission.csv"
    ) -> int:
        """Submit a finished kernel version to a code competition and return the ref.

        Kaggle runs the version again over the hidden test set and scores the file of that name. Raises `KaggleError`,
        with `status` 403 where it takes such submissions from its page only.
        """
        request = self._types.ApiCreateCodeSubmissionRequest()
        request.competition_name, request.file_name, request.submission_description = slug, file_name, message
        request.kernel_owner, request.kernel_slug = version.kernel.owner, version.kernel.slug
        request.kernel_version = version.version
        answer = self._submit(
            slug,
            message,
            lambda: self._session.send(
                lambda kaggle: kaggle.competitions.competition_api_client.create_code_submission, request
            ),
        )
        return int(answer.ref)

    def submission(self, ref: int) -> KaggleSubmission:
        """One submission's state; PENDING too while Kaggle does not know it yet (404 in its first seconds)."""
        request = self._types.ApiGetSubmissionRequest()
        request.ref = ref
        try:
            answer = self._session.read(
                Subject("submission", f"submission {ref}"),
                lambda: self._session.send(
                    lambda kaggle: kaggle.competitions.competition_api_client.get_submission, request
                ),
            )
        except KaggleError as error:
            if error.status == 404:
                return KaggleSubmission(ref, "PENDING", None, None, "")
            raise
        return _as_submission(answer)

    def submissions(self, slug: str) -> list[KaggleSubmission]:
        """The newest submissions of a competition (one page), newest first."""
        found = self._read(slug, lambda: self._session.api.competition_submissions(slug, page_size=PAGE_SIZE))
        return [_as_submission(submission) for submission in found or []]

    def _submit(self, slug: str, message: str, send: Callable[[], Any]) -> Any:  # noqa: ANN401 (the client's answer)
        """Send what costs one of the day's submissions; where the answer is lost, look whether a new one is there."""
        before = {submission.ref for submission in self.submissions(slug)}

        def arrived() -> Any:  # noqa: ANN401
            found = self._session.api.competition_submissions(slug, page_size=PAGE_SIZE) or []
            return next((entry for entry in found if entry.ref not in before and entry.description == message), None)

        answer = self._session.change(Subject("competition", slug), send, arrived)
        if not answer.ref:
            raise KaggleError(
                f"{slug}: Kaggle took no submission ({getattr(answer, 'message', '') or 'it says no more'}); "
                f"look at {SITE}/competitions/{slug}/submissions before you try again"
            )
        return answer

    def _submit_file(self, slug: str, path: Path, message: str) -> Any:  # noqa: ANN401
        answer = self._session.api.competition_submit(str(path), message, slug, quiet=True)
        # Up to 2.2.4 the client only prints that an upload failed; what it returns then has no ref.
        if not answer.ref:
            raise KaggleError(f"{path}: the upload to {slug} failed ({answer.message}); try again in a minute")
        return answer

    def _list_page(self, slug: str, page_token: str | None) -> Any:  # noqa: ANN401
        return self._session.api.competition_list_files(slug, page_token=page_token, page_size=PAGE_SIZE)

    def _ask(self, slug: str, method: Callable[[Any], Callable[[Any], Any]], request: object) -> Any:  # noqa: ANN401
        return self._read(slug, lambda: self._session.send(method, request))

    def _read(self, slug: str, function: Callable[[], Any]) -> Any:  # noqa: ANN401
        return self._session.read(Subject("competition", slug), function)


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


def _unpack(archive: Path, folder: Path) -> None:
    """Unzip, and unzip what lies zipped inside (`train.csv.zip`), so that only plain files are left."""
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        for nested in sorted(path for path in folder.rglob("*.csv.zip") if path.is_file()):
            with zipfile.ZipFile(nested) as content:
                content.extractall(nested.parent)
            nested.unlink()
    except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        shutil.rmtree(archive.parent, ignore_errors=True)
        member = Path(str(error.filename))
        name = next(path for path in (member, *member.parents) if path.exists()).relative_to(folder)
        cure = "unpack it by hand from the competition's page"
        raise PodiumError(f"{archive.name}: {name} is both a file and a folder in the archive; {cure}") from None
    except (zipfile.BadZipFile, FileNotFoundError, NotImplementedError, RuntimeError, zlib.error):
        # Encrypted and strangely compressed ones too.
        shutil.rmtree(archive.parent, ignore_errors=True)
        raise PodiumError(f"{archive.name}: the archive arrived damaged; run the download again") from None


def _refuse_clash(folder: Path, name: Path) -> None:
    """A file that came cannot replace a folder, nor lie in what is a file here."""
    clash = folder / name if (folder / name).is_dir() else None
    for parent in (folder / name).relative_to(folder).parents:
        clash = folder / parent if (folder / parent).is_file() else clash
    if clash is not None:
        what = "a folder" if clash.is_dir() else "a file"
        raise PodiumError(f"{clash}: is {what} here and none in the download; move it away and download again")


def _move_in(source: Path, folder: Path) -> list[Path]:
    """A new folder appears in one step; into one that exists, each file does."""
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    if not folder.exists():
        source.rename(folder)
    else:
        for name in names:
            _refuse_clash(folder, name)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(folder / name)
    return [folder / name for name in names]
