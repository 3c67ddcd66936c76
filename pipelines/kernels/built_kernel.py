"""A kernel as `podium kernel build` left it: its folder, its datasets, and the digests that tell a later change."""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.files.digests import file_digest
from pipelines import names
from pipelines.addresses import KernelName
from pipelines.errors import PodiumError
from pipelines.kaggle.metadata import DATASET_METADATA, KERNEL_METADATA, DatasetMetadata, KernelMetadata
from pipelines.kernels.kinds import Machine
from pipelines.kernels.manifest import MANIFEST, BuiltDataset, Manifest
from pipelines.records import DamagedRecord
from pipelines.workspace import Workspace

NO_OWNER = "local"


@dataclass(frozen=True)
class DatasetFolder:
    """A flat folder that travels as a private dataset; `digest` is that of its content."""

    name: KernelName
    kind: str
    folder: Path
    digest: str


@dataclass(frozen=True)
class BuiltKernel:
    """A folder under build/kernels with its manifest, its kernel-metadata.json and its datasets' folders."""

    folder: Path
    manifest: Manifest
    metadata: KernelMetadata
    datasets: tuple[DatasetFolder, ...]

    @property
    def kernel(self) -> KernelName:
        return self.manifest.kernel

    @property
    def machine(self) -> Machine:
        if self.metadata.enable_gpu:
            return Machine.GPU
        return Machine.TPU if self.metadata.enable_tpu else Machine.CPU

    @property
    def code_file(self) -> Path:
        return self.folder / self.metadata.code_file

    def own_inputs(self) -> dict[str, Path]:
        """Mount -> folder of the datasets that were built with the kernel."""
        return {dataset.name.dataset_mount: dataset.folder for dataset in self.datasets}

    def uploaded_files(self) -> list[Path]:
        """Everything that leaves this machine when the kernel is pushed."""
        files = [self.code_file, self.folder / KERNEL_METADATA]
        for dataset in self.datasets:
            files += sorted(path for path in dataset.folder.iterdir() if path.is_file())
        return files


def find_owner(owner: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Whose kernel it becomes: `owner`, else the name in the credentials, else a word that rehearsals can do with.

    Raises PodiumError for what is no name of a user.
    """
    found, where = owner or environment.get("KAGGLE_USERNAME"), "owner" if owner else "KAGGLE_USERNAME"
    if not found:
        found, where = _owner_on_file(environment)
    try:
        return names.owner(found)
    except ValueError as error:
        raise PodiumError(f"{where}: {error}") from None


def _owner_on_file(environment: Mapping[str, str]) -> tuple[str, str]:
    """The user of the first kaggle.json there is, and its path."""
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    for folder in (environment.get("KAGGLE_CONFIG_DIR"), home / ".kaggle", config / "kaggle"):
        if folder and (path := Path(folder) / "kaggle.json").is_file():
            try:
                return str(json.loads(path.read_text(encoding="utf-8"))["username"]), str(path)
            except (OSError, ValueError, KeyError, TypeError):
                raise PodiumError(f"{path}: names no user; download it again from your account's page") from None
    return NO_OWNER, ""


def load_built_kernel(workspace: Workspace, name: str) -> BuiltKernel:
    """The built kernel of a slug. Raises `PodiumError` where it is not built, or was changed since."""
    try:
        names.slug(name)
    except ValueError as error:
        raise PodiumError(f"kernel: {error}, as under kernels/") from None
    folder = workspace.build / "kernels" / name
    if not (folder / MANIFEST).exists():
        raise PodiumError(_say_unbuilt(workspace, folder))
    try:
        manifest = Manifest.read(folder / MANIFEST)
        _check_files(folder, manifest.files)
        datasets = tuple(_load_dataset(workspace, dataset) for dataset in manifest.datasets)
        return BuiltKernel(folder, manifest, KernelMetadata.read(folder / KERNEL_METADATA), datasets)
    except DamagedRecord as error:
        raise PodiumError(f"{error}; build the kernel again: make kernel K={name}") from None


def _say_unbuilt(workspace: Workspace, folder: Path) -> str:
    known = sorted(path.parent.name for path in workspace.build.glob(f"kernels/*/{MANIFEST}"))
    near = difflib.get_close_matches(folder.name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"build it with: make kernel K={folder.name}"
    return f"kernel {folder.name}: not built ({folder / MANIFEST} is not there); {hint}"


def _load_dataset(workspace: Workspace, built: BuiltDataset) -> DatasetFolder:
    folder = workspace.build / "datasets" / built.slug
    _check_files(folder, built.files)
    extra = sorted({file.name for file in folder.iterdir()} - {DATASET_METADATA, *built.files})
    if extra:
        raise PodiumError(f"{folder / extra[0]}: is not of this dataset, but would be uploaded; take it away")
    metadata = DatasetMetadata.read(folder / DATASET_METADATA)
    return DatasetFolder(metadata.id, built.kind, folder, built.digest)


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise PodiumError(f"{path}: is gone since the kernel was built; build it again")
        if file_digest(path) != digest:
            raise PodiumError(f"{path}: was changed after the kernel was built; build it again")
