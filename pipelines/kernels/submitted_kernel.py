"""What a record of the ledger says of the kernel whose output was submitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pipelines.addresses import KernelName, RecordedKernel
from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.manifest import BuildFlags, BuiltDataset, Manifest
from pipelines.kernels.pushes import Push
from pipelines.records import Commit, Digest, Place, Record


@dataclass(frozen=True, kw_only=True)
class KeptDiff(Record):
    """Uncommitted changes that the ledger keeps, by their digest; secrets were taken out of so many places."""

    sha256: Digest
    secrets_removed: int = 0


@dataclass(frozen=True, kw_only=True)
class SubmittedKernel(Record):
    """A pushed version. The ledger fills in its source (`commit`, `diff`) and the files that a build of it reads."""

    kernel: RecordedKernel
    version: int
    mode: KernelMode | None = None
    built_with: BuildFlags | None = None
    source_sha256: Digest | None = None
    bundle_sha256: Digest
    files: Mapping[Place, Digest] = field(default_factory=dict)
    datasets: tuple[BuiltDataset, ...] = ()
    dataset_versions: Mapping[RecordedKernel, int] = field(default_factory=dict)
    docker_image: str | None = None
    commit: Commit | None = None
    diff: KeptDiff | None = None
    files_sha256: Mapping[Place, Digest] = field(default_factory=dict)

    @classmethod
    def built(cls, manifest: Manifest, version: int, dataset_versions: Mapping[KernelName, int] | None = None) -> Self:
        """The version of a kernel whose manifest is at hand."""
        return cls(
            kernel=manifest.kernel,
            version=version,
            mode=manifest.mode,
            built_with=manifest.built_with,
            source_sha256=manifest.source_sha256,
            bundle_sha256=manifest.bundle_sha256,
            files=manifest.files,
            datasets=manifest.datasets,
            dataset_versions=dict(dataset_versions or {}),
        )

    @classmethod
    def pushed(cls, push: Push) -> Self:
        """The version that a push made."""
        return cls.built(push.manifest, push.version.version, push.datasets)
