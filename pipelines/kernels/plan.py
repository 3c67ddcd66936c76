"""The plan that travels beside a kernel's source: the build writes it, and the session carries it out."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.addresses import RecordedKernel
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.records import Digest, ExperimentName, Name, Place, Record

# In the bundle: the plan, the folds as numbers, and the small files of the run.
PLAN, FOLDS, RUN = "kernel/kernel.json", "kernel/folds.txt", "kernel/run"


@dataclass(frozen=True, kw_only=True)
class PlacedFile(Record):
    """A file of a flat dataset: its path in the run directory, and its digest."""

    path: Place
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class WeightsInput(Record):
    """Where the weights are mounted, and which files they are."""

    mount: Place
    files: Mapping[Name, PlacedFile]


@dataclass(frozen=True, kw_only=True)
class WheelsInput(Record):
    """Where the wheels are mounted that the image lacks, and their names."""

    mount: Place
    files: tuple[Name, ...]


@dataclass(frozen=True, kw_only=True)
class Plan(Record):
    """What a session does. `weights` and `run` are there where it predicts; inputs are named by their mounts."""

    format: int
    kernel: RecordedKernel
    mode: KernelMode
    competition: Name
    experiment: ExperimentName
    run: Name | None
    data: Place
    weights: WeightsInput | None
    wheels: WheelsInput | None
    resume_from: tuple[Place, ...]
    folds_sha256: str
    source_sha256: Digest
    accelerator: str
    accelerator_kind: Machine
    train_seconds: float
    run_mode: str | None
