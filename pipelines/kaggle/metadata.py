"""The files that say what a folder becomes on Kaggle: kernel-metadata.json and dataset-metadata.json."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.addresses import RecordedKernel
from pipelines.records import Name, Record

KERNEL_METADATA, DATASET_METADATA = "kernel-metadata.json", "dataset-metadata.json"


@dataclass(frozen=True, kw_only=True)
class CodeFile(Record):
    """Of kernel-metadata.json what running a kernel needs."""

    code_file: Name


@dataclass(frozen=True, kw_only=True)
class KernelMetadata(Record):
    """kernel-metadata.json. Every field is written: of the client's defaults one (internet) is not what it says."""

    id: RecordedKernel
    id_no: int | None
    title: str
    code_file: Name
    language: str
    kernel_type: str
    is_private: bool
    enable_gpu: bool
    enable_tpu: bool
    enable_internet: bool
    machine_shape: str | None
    dataset_sources: tuple[str, ...]
    competition_sources: tuple[str, ...]
    kernel_sources: tuple[str, ...]
    model_sources: tuple[str, ...]
    keywords: tuple[str, ...]
    docker_image: str | None
    docker_image_pinning_type: str

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """What is mounted, by its kind as Kaggle names it."""
        return {
            "dataset": self.dataset_sources,
            "competition": self.competition_sources,
            "kernel": self.kernel_sources,
            "model": self.model_sources,
        }


@dataclass(frozen=True, kw_only=True)
class Licence(Record):
    """A licence by Kaggle's name for it."""

    name: str


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata(Record):
    """dataset-metadata.json."""

    id: RecordedKernel
    licenses: tuple[Licence, ...]
    title: str
    subtitle: str | None = None
    description: str | None = None
