"""A kernel as `podium kernel build` left it: its folder, its datasets, and the digests that tell a later change."""

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines import names
from pipelines.errors import PodiumError
from pipelines.workspace import Workspace

MANIFEST, METADATA, DATASET_METADATA = "MANIFEST.json", "kernel-metadata.json", "dataset-metadata.json"
REHEARSAL, IMAGE_REHEARSAL = "rehearsal.json", "rehearsal-kaggle.json"
NO_OWNER = "local"


@dataclass(frozen=True)
class DatasetFolder:
    """A flat folder that travels as a private dataset; `digest` is that of its content."""

    dataset: str
    kind: str
    folder: Path
    digest: str


@dataclass(frozen=True)
class BuiltKernel:
    """What MANIFEST.json says; `digest` is that of all that a push would send."""

    folder: Path
    kernel: str
    mode: str
    competition: str
    kaggle_slug: str
    experiment: str
    run: str
    bundle_sha256: str
    digest: str
    datasets: tuple[DatasetFolder, ...]
    timeout_seconds: int | None

    @property
    def slug(self) -> str:
        return self.kernel.split("/")[-1]

    @property
    def owner(self) -> str:
        return self.kernel.split("/")[0]

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST

    @cached_property
    def metadata(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / METADATA).read_text(encoding="utf-8"))
        return content

    @property
    def machine(self) -> str:
        """cpu, gpu or tpu: Kaggle counts sessions and hours by it."""
        return "gpu" if self.metadata["enable_gpu"] else "tpu" if self.metadata["enable_tpu"] else "cpu"

    @property
    def code_file(self) -> Path:
        try:
            return self.folder / names.name(self.metadata["code_file"])
        except ValueError as error:
            raise PodiumError(f"{self.folder / METADATA}: code_file: {error}; build the kernel again") from None

    def own_inputs(self) -> dict[str, Path]:
        """Mount -> folder of the datasets that were built with the kernel."""
        return {f"datasets/{dataset.dataset}": dataset.folder for dataset in self.datasets}

    def uploaded_files(self) -> list[Path]:
        """Everything that leaves this machine when the kernel is pushed."""
        files = [self.code_file, self.folder / METADATA]
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
    manifest = _load_manifest(workspace, folder)
    try:
        _check_manifest(folder / MANIFEST, manifest)
        _check_files(folder, manifest["files"])
        datasets = tuple(_dataset(workspace, dataset) for dataset in manifest.get("datasets", ()))
        sent = {key: manifest.get(key) for key in ("kernel", "bundle_sha256", "files", "datasets")}
        timeout = manifest.get("timeout_seconds")
        return BuiltKernel(
            folder=folder,
            kernel=manifest["kernel"],
            mode=manifest["mode"],
            competition=manifest["competition"],
            kaggle_slug=manifest["kaggle_slug"],
            experiment=manifest["experiment"],
            run=manifest.get("run") or "",
            bundle_sha256=manifest["bundle_sha256"],
            digest=_digest_of(sent),
            datasets=datasets,
            timeout_seconds=None if timeout is None else int(timeout),
        )
    except KeyError as error:
        raise PodiumError(f"{folder / MANIFEST}: {error} is missing; build it again: make kernel K={name}") from None


def _load_manifest(workspace: Workspace, folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(path.parent.name for path in workspace.build.glob(f"kernels/*/{MANIFEST}"))
        near = difflib.get_close_matches(folder.name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"build it with: make kernel K={folder.name}"
        raise PodiumError(f"kernel {folder.name}: not built ({path} is not there); {hint}") from None
    except (OSError, ValueError) as error:
        raise PodiumError(f"{path}: cannot be read ({error}); build it again: make kernel K={folder.name}") from None
    if not isinstance(content, dict):
        raise PodiumError(f"{path}: holds no JSON object; build it again: make kernel K={folder.name}")
    return content


def _check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Names of files and datasets, which a push sends, stay in the folders that were built."""
    try:
        names.source(manifest["kernel"], "owner/slug")
        for name in manifest["files"]:
            names.name(name)
        for dataset in manifest.get("datasets", ()):
            names.source(dataset["slug"], "owner/slug", "slug")
            for name in dataset["files"]:
                names.place(name)
    except (ValueError, TypeError) as error:
        raise PodiumError(f"{path}: {error}; build the kernel again") from None


def _dataset(workspace: Workspace, described: Mapping[str, Any]) -> DatasetFolder:
    folder = workspace.build / "datasets" / str(described["slug"]).split("/")[-1]
    _check_files(folder, described["files"])
    path = folder / DATASET_METADATA
    extra = sorted({file.name for file in folder.iterdir()} - {DATASET_METADATA, *described["files"]})
    if extra:
        raise PodiumError(f"{folder / extra[0]}: is not of this dataset, but would be uploaded; take it away")
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError) as error:
        raise PodiumError(f"{path}: names no dataset ({error}); build the kernel again") from None
    return DatasetFolder(name, str(described.get("kind", "")), folder, _digest_of(described["files"]))


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise PodiumError(f"{path}: is gone since the kernel was built; build it again")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise PodiumError(f"{path}: was changed after the kernel was built; build it again")


def _digest_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
