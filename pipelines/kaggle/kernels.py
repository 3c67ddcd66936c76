"""Kernels on Kaggle: a version saved once, its state, its log as it comes, its output held against its digests.

Versions are asked for by label ("v3"): up to 2.2.4 the client drops a version and answers for the newest one. A saved
version counts only if Kaggle names its number and mounts every source; both may fail under HTTP status 200.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from requests import RequestException, Response

from components.files.atomic import atomic_file
from pipelines.addresses import KernelName, KernelVersion
from pipelines.kaggle.errors import SITE, DamagedDownload, KaggleError, Subject, cure_of, explain
from pipelines.kaggle.metadata import KERNEL_METADATA, KernelMetadata
from pipelines.kaggle.session import TIMEOUT, KaggleSession

PAGE_SIZE = 200
SOURCES = ("dataset", "competition", "kernel", "model")
CHUNK = 1 << 20


class KernelStatus(StrEnum):
    """How a version fares, in Kaggle's words."""

    NEW_SCRIPT = "NEW_SCRIPT"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    COMPLETE = "COMPLETE"
    ERROR = "ERROR"
    CANCEL_ACKNOWLEDGED = "CANCEL_ACKNOWLEDGED"

    @property
    def has_failed(self) -> bool:
        return self in (KernelStatus.ERROR, KernelStatus.CANCEL_ACKNOWLEDGED)

    @property
    def is_over(self) -> bool:
        return self is KernelStatus.COMPLETE or self.has_failed


@dataclass(frozen=True)
class SavedKernel:
    """The newest version of a kernel as Kaggle has it; `sources` maps dataset, competition, kernel, model to names.

    `kind` is notebook or script, "" where Kaggle does not say.
    """

    kernel: KernelName
    version: int
    source: str
    sources: Mapping[str, frozenset[str]]
    kind: str = ""


@dataclass(frozen=True)
class KernelState:
    """How a version fares, and Kaggle's words about a failure."""

    status: KernelStatus
    message: str = ""

    @property
    def is_over(self) -> bool:
        return self.status.is_over


@dataclass(frozen=True)
class LogLine:
    """What a kernel wrote to one of its streams, `time` seconds after its start."""

    stream: str
    time: float
    text: str


@dataclass(frozen=True)
class OutputFile:
    """One file that a kernel left, as it arrived here."""

    name: str
    num_bytes: int
    sha256: str


class KaggleKernels:
    """The kernels of a signed-in user."""

    def __init__(self, session: KaggleSession) -> None:
        from kagglesdk.kernels.types import kernels_api_service

        self._session = session
        self._types: Any = kernels_api_service

    def current(self, kernel: KernelName) -> SavedKernel | None:
        """The newest version; None for a kernel that does not exist yet (403 or 404)."""
        try:
            return self._session.read(_subject(kernel), lambda: self._current(kernel))
        except KaggleError as error:
            if error.status in (403, 404):
                return None
            raise

    def push(self, folder: Path, before: SavedKernel | None, *, timeout_seconds: int | None = None) -> KernelVersion:
        """Save the kernel of a folder (kernel-metadata.json and its code) as a new version, which runs.

        `before` is what `current` said. A lost answer is not answered by a second version: the first is looked for.
        Raises `KaggleError` for what Kaggle refuses, and for a version that runs without one of its sources.
        """
        metadata = KernelMetadata.read(folder / KERNEL_METADATA)
        kernel, code = metadata.id, (folder / metadata.code_file).read_text(encoding="utf-8")
        subject = _subject(kernel)
        timeout = None if timeout_seconds is None else str(timeout_seconds)

        def arrived() -> Any:  # noqa: ANN401 (the client's answer, or what stands for it)
            number = self._arrived(kernel, before, code)
            return None if number is None else _LostAnswer(number)

        def save() -> Any:  # noqa: ANN401
            return self._session.api.kernels_push(str(folder), timeout)

        answer = self._session.change(subject, save, arrived)
        if answer.error:
            raise KaggleError(f"{kernel}: Kaggle did not take it: {answer.error}; {_push_cure(answer.error)}")
        number = int(answer.version_number or 0)
        if not number:
            number = self._session.read(subject, lambda: self._arrived(kernel, before, code)) or 0
        if not number:
            raise KaggleError(f"{kernel}: Kaggle names no version it saved; look at {_page(kernel)} and push again")
        self._check_sources(metadata, number, answer)
        return KernelVersion(kernel, number)

    def status(self, version: KernelVersion) -> KernelState:
        """How a version fares. Raises `KaggleError` (403, 404) for one that Kaggle does not know."""
        request = self._request("ApiGetKernelSessionStatusRequest", version.kernel, version.version)
        answer = self._ask(version.kernel, lambda client: client.get_kernel_session_status, request)
        return KernelState(KernelStatus(answer.status.name), " ".join((answer.failure_message or "").split()))

    def log(self, version: KernelVersion) -> list[LogLine]:
        """All that a finished version wrote; empty while it runs."""
        request = self._request("ApiListKernelSessionOutputRequest", version.kernel, version.version)
        request.page_size = 1
        answer = self._ask(version.kernel, lambda client: client.list_kernel_session_output, request)
        return _parse_log(answer.log or "")

    def follow_log(self, version: KernelVersion) -> Iterator[LogLine]:
        """What a running version writes, from its beginning, as it comes; ends with the run or with the connection.

        Raises `KaggleError` where there is no stream to be had.
        """
        with self._session.http() as (http, address):
            url, label = f"{address}/kernels/logs/stream/{version.kernel}", {"versionLabel": f"v{version.version}"}
            headers = {"Accept": "text/event-stream, */*"}
            try:
                with http.get(url, params=label, headers=headers, stream=True) as answer:
                    answer.raise_for_status()
                    yield from _read_stream(answer)
            except RequestException as error:
                raise explain(error, _subject(version.kernel)) from None

    def download_output(self, version: KernelVersion, folder: Path) -> list[OutputFile]:
        """Fetch all files that a version left into `folder`, sorted by name.

        Each is held against the length and the MD5 that come with it, and fetched again where it arrived short.
        """
        kernel = version.kernel
        request = self._request("ApiListKernelSessionOutputRequest", kernel, version.version)
        request.page_size = PAGE_SIZE
        files = []
        while True:
            page = self._ask(kernel, lambda client: client.list_kernel_session_output, request)
            for file in page.files or []:
                files.append(self._download(kernel, file.file_name, file.url, folder))
            if not page.next_page_token:
                return sorted(files, key=lambda file: file.name)
            request.page_token = page.next_page_token

    def _current(self, kernel: KernelName) -> SavedKernel:
        answer = self._session.send(
            lambda kaggle: kaggle.kernels.kernels_api_client.get_kernel, self._request("ApiGetKernelRequest", kernel)
        )
        metadata = answer.metadata
        sources = {kind: frozenset(getattr(metadata, f"{kind}_data_sources") or []) for kind in SOURCES}
        number, kind = int(metadata.current_version_number or 0), metadata.kernel_type or ""
        return SavedKernel(kernel, number, answer.blob.source or "", sources, kind)

    def _arrived(self, kernel: KernelName, before: SavedKernel | None, code: str) -> int | None:
        """The version that a lost answer was about; None where none was saved."""
        try:
            now = self._current(kernel)
        except RequestException as error:
            if explain(error, _subject(kernel)).status in (403, 404):
                return None
            raise
        if not now.version and is_same_code(now.source, code) and not (before and is_same_code(before.source, code)):
            raise KaggleError(f"{kernel}: was saved, but Kaggle does not say as which version; look at {_page(kernel)}")
        if now.version <= (before.version if before else 0):
            return None
        if not is_same_code(now.source, code):
            raise KaggleError(
                f"{kernel}: version {now.version} was saved meanwhile and holds other code; somebody else pushes this "
                f"kernel too: look at {_page(kernel)} and push again"
            )
        return now.version

    def _check_sources(self, metadata: KernelMetadata, number: int, answer: Any) -> None:  # noqa: ANN401
        if isinstance(answer, _LostAnswer):
            current = self.current(metadata.id)
            mounted = current.sources if current and current.version == number else {}
            missing = missing_sources(metadata, mounted)
        else:
            missing = {kind: list(getattr(answer, f"invalid_{kind}_sources") or []) for kind in SOURCES}
        if not any(missing.values()):
            return
        named = "; ".join(f"{kind} {', '.join(names)}" for kind, names in missing.items() if names)
        raise KaggleError(
            f"{metadata.id}: version {number} was saved but runs without a source that Kaggle does not find or does "
            f"not let you use: {named}; compare the name with its page, accept a competition's rules, and push again"
        )

    def _request(self, name: str, kernel: KernelName, version: int | None = None) -> Any:  # noqa: ANN401
        request = getattr(self._types, name)()
        request.user_name, request.kernel_slug = kernel.owner, kernel.slug
        if version is not None:
            request.version_label = f"v{version}"
        return request

    def _ask(self, kernel: KernelName, method: Callable[[Any], Callable[[Any], Any]], request: object) -> Any:  # noqa: ANN401
        return self._session.read(
            _subject(kernel),
            lambda: self._session.send(lambda kaggle: method(kaggle.kernels.kernels_api_client), request),
        )

    def _download(self, kernel: KernelName, name: str, url: str, folder: Path) -> OutputFile:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise KaggleError(f"{kernel}: the output file {name} would leave its folder; delete it in the kernel")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        subject = Subject("kernel", f"{kernel}: {name}")
        return self._session.read(subject, lambda: _fetch(url, name, target))


@dataclass(frozen=True)
class _LostAnswer:
    """Stands for an answer that never came, about a version that did arrive."""

    version_number: int
    error: str = ""


def is_same_code(one: str, other: str) -> bool:
    """Whether two sources hold the same cells; the client rewrites a notebook's JSON on its way to Kaggle."""
    return _cells(one) == _cells(other)


def _cells(source: str) -> object:
    try:
        cells = json.loads(source)["cells"]
        return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return source.strip()


def missing_sources(metadata: KernelMetadata, mounted: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """What of kernel-metadata.json's sources a saved version lacks, by kind."""
    return {
        kind: [name for name in names if not any(_is_same_source(name, other) for other in mounted.get(kind, ()))]
        for kind, names in metadata.sources.items()
    }


def _is_same_source(name: str, other: str) -> bool:
    """Kaggle may answer with a version at a source's end, or with a folder's name before it."""
    return (
        f"/{other}/".endswith(f"/{name}/") or f"{other}/".startswith(f"{name}/") or f"{name}/".startswith(f"{other}/")
    )


def _push_cure(error: str) -> str:
    return cure_of(error, "correct what it says and push again; no version was saved")


def _subject(kernel: KernelName) -> Subject:
    return Subject("kernel", str(kernel))


def _page(kernel: KernelName) -> str:
    return f"{SITE}/code/{kernel}"


def _read_stream(answer: Response) -> Iterator[LogLine]:
    """Events of a live stream; a finished run answers with its whole log instead."""
    if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        yield from _parse_log(answer.text)
        return
    # Where the length of the parts is not sent, whoever reads many bytes at once waits for as many.
    is_chunked = answer.headers.get("Transfer-Encoding", "") == "chunked"
    for line in answer.iter_lines(chunk_size=512 if is_chunked else 1):
        text = line.decode("utf-8", "replace")
        payload = text.removeprefix("data:").strip() if text.startswith("data:") else ""
        if payload == "END_OF_LOG":
            return
        if payload:
            yield from _parse_log(f"[{payload}]")


def _parse_log(text: str) -> list[LogLine]:
    """Kaggle's JSON list of events; what is no such list is taken as it stands."""
    try:
        return [LogLine(str(e.get("stream_name")), float(e.get("time") or 0), str(e["data"])) for e in json.loads(text)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [LogLine("stdout", 0.0, text)] if text.strip() else []


def _fetch(url: str, name: str, target: Path) -> OutputFile:
    """Download without credentials, for the address is signed."""
    sha256, md5, num_bytes = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with atomic_file(target) as partial:
        with requests.get(url, stream=True, timeout=TIMEOUT) as answer, partial.open("wb") as file:
            answer.raise_for_status()
            try:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    sha256.update(chunk)
                    md5.update(chunk)
                    num_bytes += len(chunk)
            except RequestException:
                raise DamagedDownload(f"broke off after {num_bytes} bytes") from None
        _check_arrival(answer, num_bytes, md5.digest())
    return OutputFile(name, num_bytes, sha256.hexdigest())


def _check_arrival(answer: Response, num_bytes: int, md5: bytes) -> None:
    expected = answer.headers.get("Content-Length")
    is_plain = "Content-Encoding" not in answer.headers
    if is_plain and expected is not None and int(expected) != num_bytes:
        raise DamagedDownload(f"{num_bytes} of {expected} bytes arrived")
    for part in answer.headers.get("x-goog-hash", "").split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5" and is_plain and base64.b64decode(value) != md5:
            raise DamagedDownload("arrived with another MD5 than Kaggle names")
