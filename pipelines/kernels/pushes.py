"""What was pushed from this checkout, and what came back: one line per push, one folder per version's output."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from components.files.atomic import atomic_file, atomic_folder
from components.files.digests import file_digest
from components.files.json_lines import append_line, whole_lines
from pipelines import names
from pipelines.addresses import KernelName, KernelVersion, RecordedKernel
from pipelines.errors import PodiumError
from pipelines.kaggle.kernels import KaggleKernels, KernelState, KernelStatus, LogLine
from pipelines.kernels.built_kernel import BuiltKernel
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.kernels.manifest import MANIFEST, Manifest
from pipelines.records import DamagedRecord, Digest, ExperimentName, Place, Record
from pipelines.workspace import Workspace

# Twelve hours, and some for a machine to get free.
LONGEST_SESSION = timedelta(hours=14)
# A version that trains holds no run yet: "".
_RunName = Annotated[str, AfterValidator(lambda run: run and names.name(run))]


@dataclass(frozen=True, kw_only=True)
class PushEntry(Record):
    """A line about a version that was saved; later lines (`PushNote`) say how it fared."""

    version: int
    kernel: RecordedKernel
    time: str
    digest: Digest
    bundle_sha256: Digest
    experiment: ExperimentName
    run: _RunName
    mode: KernelMode
    machine: Machine
    datasets: Mapping[RecordedKernel, int]
    status: KernelStatus
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class PushNote(Record):
    """What any line says; one with a kernel is a `PushEntry`."""

    version: int
    kernel: RecordedKernel | None = None
    status: KernelStatus | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputFile(Record):
    """A pulled file as it arrived."""

    sha256: Digest
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class OutputRecord(Record):
    """Lies beside a version's pulled output and tells a later change of it."""

    kernel: RecordedKernel
    version: int
    files: Mapping[Place, OutputFile]


@dataclass(frozen=True)
class Push:
    """A version that Kaggle saved of a kernel that was built here, and how it fared as far as is known."""

    entry: PushEntry
    manifest_file: Path

    @property
    def version(self) -> KernelVersion:
        return KernelVersion(self.entry.kernel, self.entry.version)

    @property
    def run(self) -> str:
        """The run that it holds; "" for one that trains."""
        return self.entry.run

    @property
    def datasets(self) -> Mapping[KernelName, int]:
        """The versions of its datasets."""
        return self.entry.datasets

    @property
    def status(self) -> KernelStatus:
        return self.entry.status

    @cached_property
    def manifest(self) -> Manifest:
        """MANIFEST.json as it was pushed; the kernel may have been built anew since. Raises PodiumError without it."""
        return Manifest.read(self.manifest_file)


@dataclass(frozen=True)
class PulledOutput:
    """The output of one version: a folder with its files, and beside it their digests and the log."""

    version: KernelVersion
    folder: Path
    files: Mapping[str, str]
    log: Path


class PushLog:
    """The pushes of one kernel. A push is a version with what it holds; later lines add how it ended."""

    def __init__(self, workspace: Workspace, slug: str) -> None:
        try:
            names.slug(slug)
        except ValueError as error:
            raise PodiumError(f"kernel: {error}, as under kernels/") from None
        self.path = workspace.build / "pushes" / f"{slug}.jsonl"
        self._outputs = workspace.build / "outputs" / slug

    def pushes(self) -> list[Push]:
        """Each version in its latest state, oldest first.

        A last line that a kill has torn counts as not written. Raises PodiumError naming one that is damaged.
        """
        latest: dict[int, PushEntry] = {}
        for number, line in enumerate(whole_lines(self.path), start=1):
            try:
                _add_line(latest, line, f"{self.path}: line {number}")
            except DamagedRecord as error:
                raise PodiumError(f"{error}; take that line out: a push asks Kaggle which versions there are") from None
        return [Push(latest[version], self._manifest(version)) for version in sorted(latest)]

    def find(self, *, digest: str | None = None, version: int | None = None) -> Push | None:
        """The newest push of this content, of this version, or of all."""
        fitting = [
            push
            for push in self.pushes()
            if digest in (None, push.entry.digest) and version in (None, push.entry.version)
        ]
        return fitting[-1] if fitting else None

    def add(self, built: BuiltKernel, version: int, datasets: Mapping[KernelName, int]) -> Push:
        """Enter a version that Kaggle saved, with the manifest of then."""
        manifest = built.manifest
        entry = PushEntry(
            version=version,
            kernel=built.kernel,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            digest=manifest.digest,
            bundle_sha256=manifest.bundle_sha256,
            experiment=manifest.experiment,
            run=manifest.run or "",
            mode=manifest.mode,
            machine=built.machine,
            datasets=dict(datasets),
            status=KernelStatus.QUEUED,
        )
        push = Push(entry, self._manifest(version))
        with atomic_file(push.manifest_file) as partial:
            shutil.copyfile(built.folder / MANIFEST, partial)
        append_line(self.path, entry.line())
        return push

    def note(self, version: int, state: KernelState) -> None:
        """Add how a version fares."""
        append_line(self.path, PushNote(version=version, status=state.status, message=state.message).line())

    def folder(self, version: int) -> Path:
        """Where the output of a version lies, once it was pulled."""
        return self._outputs / f"v{version}"

    def output(self, version: KernelVersion) -> PulledOutput | None:
        """A version's output where it was pulled and is still what was pulled."""
        folder = self.folder(version.version)
        try:
            record = OutputRecord.read(folder.with_suffix(".json"))
            sums = {name: file_digest(folder / name) for name in record.files}
        except (OSError, DamagedRecord):
            return None
        if sums != {name: file.sha256 for name, file in record.files.items()}:
            return None
        return PulledOutput(version, folder, sums, folder.with_suffix(".log"))

    def pull(self, kernels: KaggleKernels, version: KernelVersion) -> PulledOutput:
        """Fetch a version's output and log, unless they are here; the folder appears when all has arrived."""
        here = self.output(version)
        if here is not None:
            return here
        folder = self.folder(version.version)
        shutil.rmtree(folder.with_name(f".{folder.name}.partial"), ignore_errors=True)  # as former versions named it
        with atomic_folder(folder) as partial:
            files = kernels.download_output(version, partial)
            with atomic_file(folder.with_suffix(".log")) as log:
                log.write_text("".join(line.text for line in kernels.log(version)), encoding="utf-8")
        arrived = {file.name: OutputFile(sha256=file.sha256, num_bytes=file.num_bytes) for file in files}
        record = OutputRecord(kernel=version.kernel, version=version.version, files=arrived)
        record.write(folder.with_suffix(".json"))
        return PulledOutput(version, folder, {file.name: file.sha256 for file in files}, folder.with_suffix(".log"))

    def _manifest(self, version: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-v{version}.json")


def _add_line(latest: dict[int, PushEntry], line: str, place: str) -> None:
    note = PushNote.parse(line, place)
    if note.kernel is not None:
        latest[note.version] = PushEntry.parse(line, place)
    elif note.version in latest and note.status is not None:  # else it was pushed from elsewhere
        latest[note.version] = replace(latest[note.version], status=note.status, message=note.message)


def running_pushes(workspace: Workspace, machine: Machine) -> list[Push]:
    """What was pushed from this checkout to run on such a machine and may not have ended yet."""
    slugs = sorted(path.stem for path in (workspace.build / "pushes").glob("*.jsonl"))
    since = (datetime.now(UTC) - LONGEST_SESSION).isoformat(timespec="seconds")
    pushes = [push for slug in slugs for push in PushLog(workspace, slug).pushes() if push.entry.time > since]
    return [push for push in pushes if push.entry.machine is machine and not push.status.is_over]


def last_words(lines: list[LogLine]) -> str:
    """The last line that names an error, else the last one: after a traceback Kaggle's own tools have their say."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "".join(line.text for line in lines))
    texts = [text.strip() for text in plain.splitlines() if text.strip()]
    errors = [text for text in texts if re.match(r"[\w.]*(?:Error|Exception|Interrupt|Exit)\b", text)]
    return (errors or texts or [""])[-1]
