"""Datasets on Kaggle: uploaded when their content changed and only then, and waited for until a kernel can mount them.

A version carries the digest of its content in its notes (the first one in the description), so that Kaggle itself knows
what is there and no file beside this checkout has to.
"""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kaggle.errors import SITE, KaggleError, Subject, cure_of
from pipelines.kaggle.metadata import DATASET_METADATA, DatasetMetadata
from pipelines.kaggle.session import ClientError, KaggleSession, is_terminal
from pipelines.records import DamagedRecord

MAX_FILES = 50
DEAD = ("FAILED", "DELETED")


@dataclass(frozen=True)
class DatasetState:
    """A dataset's newest version: READY, FAILED, DELETED or on its way; `digest` is "" where nothing tells it."""

    dataset: KernelName
    version: int
    status: str
    digest: str


class KaggleDatasets:
    """The datasets of a signed-in user."""

    def __init__(self, session: KaggleSession) -> None:
        from kagglesdk.blobs.types.blob_api_service import ApiBlobType
        from kagglesdk.datasets.types import dataset_api_service

        self._session = session
        self._types: Any = dataset_api_service
        self._blob_type: Any = ApiBlobType.DATASET

    def current(self, dataset: KernelName) -> DatasetState | None:
        """The newest version; None for a dataset that does not exist yet (403 or 404)."""
        try:
            return self._session.read(_subject(dataset), lambda: self._current(dataset))
        except KaggleError as error:
            if error.status in (403, 404):
                return None
            raise

    def upload(self, folder: Path, digest: str, before: DatasetState | None) -> int:
        """Make the flat files of a folder a new private dataset, or its next version; return the version's number.

        `before` is what `current` said. The version is not ready when this returns: see `wait_until_ready`.
        """
        metadata = _load_metadata(folder)
        dataset = metadata.id
        names = sorted(path.name for path in folder.iterdir() if path.name != DATASET_METADATA)
        if len(names) > MAX_FILES or not names:
            raise PodiumError(f"{folder}: {len(names)} files; a dataset holds 1 to {MAX_FILES}")
        notes = f"{metadata.description or metadata.title}\n\nsha256:{digest}"
        request, body = self._new_version(metadata, notes) if before else self._new_dataset(metadata, notes)
        self._upload_files(dataset, folder, names, digest, body)
        method: Callable[[Any], Callable[[Any], Any]] = (
            (lambda kaggle: kaggle.datasets.dataset_api_client.create_dataset_version)
            if before
            else (lambda kaggle: kaggle.datasets.dataset_api_client.create_dataset)
        )
        expected = (before.version if before else 0) + 1

        def arrived() -> Any:  # noqa: ANN401 (the client's answer, or what stands for it)
            now = self.current(dataset)
            return _LostAnswer() if now and now.version >= expected and now.digest == digest else None

        answer = self._session.change(_subject(dataset), lambda: self._session.send(method, request), arrived)
        if answer.error or (answer.status or "").lower() != "ok":
            said = answer.error or f"status {answer.status or 'missing'}"
            cure = cure_of(said, "correct what it says and push again")
            raise KaggleError(f"{dataset}: Kaggle did not take the dataset: {said}; {cure}")
        return expected

    def wait_until_ready(self, dataset: KernelName, version: int, *, patience_seconds: float = 3600) -> None:
        """Return when that version can be mounted; a kernel pushed earlier would see the one before it.

        Raises `KaggleError` when its processing failed or does not end.
        """
        deadline, number = time.monotonic() + patience_seconds, 1
        while True:
            now = self.current(dataset)
            if now and now.version >= version and now.status in DEAD:
                raise KaggleError(
                    f"{dataset}: the processing of version {version} ended as {now.status}; see what "
                    f"{SITE}/datasets/{dataset} says, delete that version there and push again"
                )
            if now and now.version >= version and now.status == "READY":
                return
            if time.monotonic() >= deadline:
                seen = f"version {now.version} is {now.status}" if now else "Kaggle does not know it"
                raise KaggleError(
                    f"{dataset}: version {version} is not ready after {patience_seconds:.0f} s ({seen}); push again to "
                    "go on waiting: nothing is uploaded twice"
                )
            self._session.retries.sleep(self._session.retries.pause(number))
            number += 1

    def _current(self, dataset: KernelName) -> DatasetState:
        status = self._ask("get_dataset_status", self._types.ApiGetDatasetStatusRequest(), dataset).status
        found = self._ask("get_dataset", self._types.ApiGetDatasetRequest(), dataset)
        version = int(found.current_version_number or 0)
        notes = next((v.version_notes for v in found.versions or [] if v.version_number == version), "")
        match = re.search(r"sha256:([0-9a-f]{64})", notes or "") or re.search(
            r"sha256:([0-9a-f]{64})", (found.description or "") if version == 1 else ""
        )
        return DatasetState(dataset, version, status.name, match.group(1) if match else "")

    def _ask(self, method: str, request: Any, dataset: KernelName) -> Any:  # noqa: ANN401 (the client's classes)
        request.owner_slug, request.dataset_slug = dataset.owner, dataset.slug
        return self._session.send(lambda kaggle: getattr(kaggle.datasets.dataset_api_client, method), request)

    def _new_dataset(self, metadata: DatasetMetadata, notes: str) -> tuple[Any, Any]:
        request = self._types.ApiCreateDatasetRequest()
        request.owner_slug, request.slug = metadata.id.owner, metadata.id.slug
        request.title, request.license_name = metadata.title, metadata.licenses[0].name
        request.subtitle, request.description = metadata.subtitle, notes
        request.is_private = True
        request.files = []
        return request, request

    def _new_version(self, metadata: DatasetMetadata, notes: str) -> tuple[Any, Any]:
        body = self._types.ApiCreateDatasetVersionRequestBody()
        body.version_notes, body.description, body.subtitle = notes, notes, metadata.subtitle
        body.files = []
        request = self._types.ApiCreateDatasetVersionRequest()
        request.owner_slug, request.dataset_slug = metadata.id.owner, metadata.id.slug
        request.body = body
        return request, body

    def _upload_files(
        self,
        dataset: KernelName,
        folder: Path,
        names: list[str],
        digest: str,
        body: Any,  # noqa: ANN401
    ) -> None:
        """Send the files and put their tokens into `body`.

        The client resumes an upload by the file's path, size and time; a build writes the same time into every file.
        So the files are shown to it under a folder named by their content: other bytes are never taken for the rest.
        """
        from kaggle.api.kaggle_api_extended import ResumableUploadContext

        shown = folder.with_name(f".{folder.name}-{digest[:16]}")
        shown.mkdir(exist_ok=True)
        for name in names:
            if not (shown / name).is_symlink():
                (shown / name).symlink_to((folder / name).resolve())

        def upload() -> None:
            body.files = []
            with ResumableUploadContext() as context:
                self._session.api.upload_files(
                    body, None, str(shown), self._blob_type, context, quiet=not is_terminal(), dir_mode="skip"
                )

        with contextlib.suppress(ClientError):  # up to 2.2.4 a file that did not arrive is left out in silence
            self._session.read(_subject(dataset), upload, is_progress_shown=True)
        if len(body.files) != len(names):
            raise KaggleError(f"{dataset}: {len(body.files)} of {len(names)} files arrived; push again")
        for name in names:
            (shown / name).unlink()
        shown.rmdir()


@dataclass(frozen=True)
class _LostAnswer:
    """Stands for an answer that never came, about a version that did arrive."""

    status: str = "ok"
    error: str = ""


def _subject(dataset: KernelName) -> Subject:
    return Subject("dataset", str(dataset))


def _load_metadata(folder: Path) -> DatasetMetadata:
    try:
        metadata = DatasetMetadata.read(folder / DATASET_METADATA)
        if not metadata.licenses:
            raise DamagedRecord(f"{folder / DATASET_METADATA}: licenses: names none")
    except DamagedRecord as error:
        raise PodiumError(f"{error}; `podium kernel build` writes it") from None
    return metadata
