"""What was pushed from this checkout, and what came back: one line per push, one folder per version's output."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import names
from pipelines.errors import PodiumError
from pipelines.kaggle.kernels import FAILED, FINISHED, KaggleKernels, LogLine
from pipelines.kernels.built_kernel import BuiltKernel
from pipelines.workspace import Workspace

Push = dict[str, Any]
ENDED = (*FINISHED, *FAILED)
# Twelve hours, and some for a machine to get free.
LONGEST_SESSION = timedelta(hours=14)


@dataclass(frozen=True)
class PulledOutput:
    """The output of one version: a folder with its files, and beside it their digests and the log."""

    kernel: str
    version: int
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
        """Each version in its latest state, oldest first; a line cut off by a crash counts as not written."""
        latest: dict[int, Push] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            latest[entry["version"]] = latest.get(entry["version"], {}) | entry
        return [latest[version] for version in sorted(latest)]

    def find(self, *, digest: str | None = None, version: int | None = None) -> Push | None:
        """The newest push of this content, of this version, or of all."""
        fitting = [
            push
            for push in self.pushes()
            if digest in (None, push.get("digest")) and version in (None, push["version"])
        ]
        return fitting[-1] if fitting else None

    def add(self, built: BuiltKernel, version: int, datasets: Mapping[str, int]) -> Push:
        """Enter a version that Kaggle saved; return its line."""
        push = {
            "version": version,
            "kernel": built.kernel,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "digest": built.digest,
            "bundle_sha256": built.bundle_sha256,
            "experiment": built.experiment,
            "run": built.run,
            "mode": built.mode,
            "machine": built.machine,
            "datasets": dict(datasets),
            "status": "QUEUED",
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built.manifest, self.manifest(version))
        self._append(push)
        return push

    def manifest(self, version: int) -> Path:
        """MANIFEST.json of a version as it was pushed; the kernel may have been built anew since."""
        return self.path.with_name(f"{self.path.stem}-v{version}.json")

    def folder(self, version: int) -> Path:
        """Where the output of a version lies, once it was pulled."""
        return self._outputs / f"v{version}"

    def note(self, version: int, **facts: object) -> None:
        """Add to what is known of a version."""
        self._append({"version": version, **facts})

    def output(self, kernel: str, version: int) -> PulledOutput | None:
        """A version's output where it was pulled and is still what was pulled."""
        folder = self.folder(version)
        try:
            files = json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))["files"]
            sums = {name: _digest(folder / name) for name in files}
        except (OSError, ValueError, KeyError):
            return None
        if sums != {name: file["sha256"] for name, file in files.items()}:
            return None
        return PulledOutput(kernel, version, folder, sums, folder.with_suffix(".log"))

    def pull(self, kernels: KaggleKernels, kernel: str, version: int) -> PulledOutput:
        """Fetch a version's output and log, unless they are here; the folder appears when all has arrived."""
        here = self.output(kernel, version)
        if here is not None:
            return here
        folder = self.folder(version)
        partial = folder.with_name(f".v{version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files = kernels.download_output(kernel, version, partial)
        _write(folder.with_suffix(".log"), "".join(line.text for line in kernels.log(kernel, version)))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        record = {file.name: {"sha256": file.sha256, "num_bytes": file.num_bytes} for file in files}
        _write(
            folder.with_suffix(".json"), json.dumps({"kernel": kernel, "version": version, "files": record}, indent=1)
        )
        sums = {file.name: file.sha256 for file in files}
        return PulledOutput(kernel, version, folder, sums, folder.with_suffix(".log"))

    def _append(self, entry: Push) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def running_pushes(workspace: Workspace, machine: str) -> list[Push]:
    """What was pushed from this checkout to run on a "cpu", "gpu" or "tpu" and may not have ended yet."""
    slugs = sorted(path.stem for path in (workspace.build / "pushes").glob("*.jsonl"))
    since = (datetime.now(UTC) - LONGEST_SESSION).isoformat(timespec="seconds")
    pushes = [push for slug in slugs for push in PushLog(workspace, slug).pushes() if push.get("time", "") > since]
    return [push for push in pushes if push.get("machine") == machine and push.get("status") not in ENDED]


def last_words(lines: list[LogLine]) -> str:
    """The last line that names an error, else the last one: after a traceback Kaggle's own tools have their say."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "".join(line.text for line in lines))
    texts = [text.strip() for text in plain.splitlines() if text.strip()]
    errors = [text for text in texts if re.match(r"[\w.]*(?:Error|Exception|Interrupt|Exit)\b", text)]
    return (errors or texts or [""])[-1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
