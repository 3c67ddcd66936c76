"""Addresses on Kaggle as values: they are taken apart and put together here and nowhere else."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import PlainValidator

from pipelines import names


@dataclass(frozen=True, order=True)
class KernelName:
    """A kernel: `owner/slug`. A dataset's name has the same form and is one, too."""

    owner: str
    slug: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError for a text that is no such address."""
        owner, slug = names.source(text, "owner/slug").split("/")
        return cls(owner, slug)

    @classmethod
    def of_source(cls, text: object) -> Self:
        """The dataset or kernel of a source, which may name its version: `owner/slug/3`. Raises ValueError."""
        owner, slug, *_ = names.source(text, "owner/slug", "owner/slug/version").split("/")
        return cls(owner, slug)

    @property
    def dataset_mount(self) -> str:
        """Where Kaggle mounts it below /kaggle/input, if it is a dataset."""
        return f"datasets/{self}"

    @property
    def output_mount(self) -> str:
        """Where Kaggle mounts a kernel's output below /kaggle/input."""
        return f"notebooks/{self}"

    def __str__(self) -> str:
        return f"{self.owner}/{self.slug}"


@dataclass(frozen=True, order=True)
class KernelVersion:
    """A version of a kernel that Kaggle saved: `owner/slug/3`."""

    kernel: KernelName
    version: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError for a text that is no such address."""
        owner, slug, version = names.source(text, "owner/slug/version").split("/")
        if not version.isdecimal() or int(version) < 1:
            raise ValueError(f"{names.shown(text)} is no version of a kernel; needs owner/slug/version, a number")
        return cls(KernelName(owner, slug), int(version))

    def __str__(self) -> str:
        return f"{self.kernel}/{self.version}"


def _kernel_name(value: object) -> KernelName:
    return value if isinstance(value, KernelName) else KernelName.parse(value)


def _kernel_version(value: object) -> KernelVersion:
    return value if isinstance(value, KernelVersion) else KernelVersion.parse(value)


# As fields of a record, where they are texts.
RecordedKernel = Annotated[KernelName, PlainValidator(_kernel_name)]
RecordedVersion = Annotated[KernelVersion, PlainValidator(_kernel_version)]
