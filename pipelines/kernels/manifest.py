"""MANIFEST.json: what a kernel was built from, and the digests of all that a push of it sends."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.addresses import RecordedKernel
from pipelines.kernels.kinds import KernelMode
from pipelines.records import Commit, Digest, ExperimentName, Name, Place, Record, Slug
from pipelines.runs.record import TrialMode

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True, kw_only=True)
class BuildFlags(Record):
    """What changed the build beside kernel.yaml: `--resume`, and SMOKE=1 for a training."""

    resume: bool
    mode: TrialMode | None


@dataclass(frozen=True, kw_only=True)
class BuiltDataset(Record):
    """A dataset that was built with the kernel; `paths` are the places in the run directory that files have."""

    slug: Slug
    kind: str
    files: Mapping[Place, Digest]
    paths: Mapping[Place, Place]

    @property
    def digest(self) -> str:
        """That of its content."""
        return digest_of(dict(self.files))


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """What a built kernel is. Former builds did not write the fields that have a default."""

    format: int
    kernel: RecordedKernel
    mode: KernelMode
    built_with: BuildFlags | None = None
    competition: Name
    kaggle_slug: Name
    experiment: ExperimentName
    run: Name | None
    run_mode: str | None = None
    commit: Commit | None
    config_sha256: Digest
    folds_sha256: str
    source_sha256: Digest
    timeout_seconds: int | None = None
    bundle_sha256: Digest
    files: Mapping[Name, Digest]
    datasets: tuple[BuiltDataset, ...]

    @property
    def digest(self) -> str:
        """That of all that a push would send."""
        entries = self.entries()
        return digest_of({key: entries[key] for key in ("kernel", "bundle_sha256", "files", "datasets")})


def digest_of(value: object) -> str:
    """The sha256 of JSON values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
