"""What a kernel is: `kernels/<slug>/kernel.yaml`, read and checked."""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pipelines import names
from pipelines.config.checks import above, at_least, did_you_mean, one_of, shown
from pipelines.config.experiment_file import read_values
from pipelines.config.values import checked_value
from pipelines.errors import ConfigError
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.workspace import Workspace

NO_ACCELERATOR = "none"
ACCELERATORS = {
    NO_ACCELERATOR: Machine.CPU,
    "NvidiaTeslaT4": Machine.GPU,  # two of them
    "NvidiaL4": Machine.GPU,
    "NvidiaL4X1": Machine.GPU,
    "NvidiaH100": Machine.GPU,
    "NvidiaRtxPro6000": Machine.GPU,
    "NvidiaTeslaA100": Machine.GPU,
    "TpuV5E8": Machine.TPU,
    "TpuV6E8": Machine.TPU,
}
"""Kaggle's machine shapes and what they are; all but the first, T4 and TpuV5E8 for particular competitions only."""
RETIRED = ("NvidiaTeslaP100", "TpuV38", "Tpu1VmV38", "TpuV232", "TpuV2256")
PINNINGS = ("original", "latest")


@dataclass(frozen=True, kw_only=True)
class KernelFile:
    """One kernel.yaml. Raises ValueError for a value that cannot be; the message starts with its key."""

    title: str
    """As Kaggle shows it; the folder's name is its slug."""
    mode: KernelMode
    """predict: a finished run's submission; train: the experiment trained on Kaggle's machine."""
    experiment: str | None = None
    """Whose newest finished real run predicts, or what is trained; the run's own where run is given."""
    run: str | None = None
    """With predict: this run instead of the newest."""
    overrides: list[str]
    """With train: fields of the experiment that differ there, as on the command line."""
    owner: str | None = None
    """A Kaggle user's name; null takes that of the credentials."""
    accelerator: str = NO_ACCELERATOR
    """none, or a machine shape of Kaggle's: NvidiaTeslaT4, TpuV5E8, ..."""
    internet: bool = False
    """Whether the kernel may reach the internet; most code competitions forbid it."""
    private: bool = True
    """Whether only its owner sees it."""
    time_limit_hours: float = 9.0
    """The competition's limit; a session's own is 12 hours, 9 on a TPU."""
    reserve_minutes: float = 20.0
    """With train: what is kept of the limit for saving, scoring and predicting."""
    memory_gb: float = 29.0
    """Memory of Kaggle's machine; 29 beside two T4, 30 without accelerator."""
    hidden_rows: int | None = None
    """Rows of the hidden test set, for the forecast; null takes the public one's."""
    wheels: list[str]
    """Requirements that Kaggle's image lacks, such as "sacrebleu==2.5.1"; they go along as a dataset."""
    dataset_sources: list[str]
    """Further datasets, owner/slug."""
    competition_sources: list[str]
    """Further competitions; an experiment's own Kaggle competition is always there."""
    kernel_sources: list[str]
    """Kernels whose output is read, owner/slug."""
    model_sources: list[str]
    """Kaggle Models, owner/model/framework/variation/version."""
    keywords: list[str]
    """Kaggle's tags."""
    docker_image: str | None = None
    """One of Kaggle's images by its digest; null leaves the choice to the next field."""
    docker_image_pinning_type: str = "original"
    """original: the image that the first version met; latest: the newest."""

    def __post_init__(self) -> None:
        one_of(self, "mode", list(KernelMode))
        object.__setattr__(self, "mode", KernelMode(self.mode))
        if self.accelerator in RETIRED:
            raise ValueError(f"accelerator: {self.accelerator!r} is retired; use NvidiaTeslaT4")
        one_of(self, "accelerator", ACCELERATORS)
        one_of(self, "docker_image_pinning_type", PINNINGS)
        above(self, 0, "time_limit_hours", "memory_gb")
        at_least(self, 0, "reserve_minutes")
        at_least(self, 1, "hidden_rows")
        if self.experiment is None and self.run is None:
            raise ValueError("experiment: missing; needs an experiment's name, or run: with a run's")
        if self.mode is KernelMode.TRAIN and self.run is not None:
            raise ValueError(f"run: {shown(self.run)} with mode train, which makes a run of its own; needs null")
        if self.mode is KernelMode.PREDICT and self.overrides:
            raise ValueError("overrides: with mode predict, whose run is made already; needs none")
        self._check_addresses()
        if self.mode is KernelMode.TRAIN and self.reserve_minutes >= 60 * self.time_limit_hours:
            raise ValueError(f"reserve_minutes: {self.reserve_minutes} leaves nothing of time_limit_hours; needs less")

    def _check_addresses(self) -> None:
        """What becomes a path, a part of an address or an argument of pip."""
        for key, check in WORDS.items():
            if getattr(self, key) is not None:
                _named(key, check, getattr(self, key))
        for key, check in LISTS.items():
            for value in getattr(self, key):
                _named(key, check, value)

    @property
    def kind(self) -> Machine:
        """What it runs on."""
        return ACCELERATORS[self.accelerator]


def _named(key: str, check: Callable[[object], object], value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _source(value: object) -> str:
    return names.source(value, "owner/slug", "owner/slug/version", "slug")


def _model(value: object) -> str:
    return names.source(value, "owner/model/framework/variation/version", "owner/model/framework/variation")


Check = Callable[[object], object]
WORDS: Mapping[str, Check] = {"title": names.line, "owner": names.owner, "run": names.experiment}
# A form that Kaggle would not take, as an address without its version, is left to `podium kernel check`.
LISTS: Mapping[str, Check] = {
    "wheels": names.requirement,
    "dataset_sources": _source,
    "competition_sources": names.slug,
    "kernel_sources": _source,
    "model_sources": _model,
    "keywords": names.line,
}


def kernel_names(workspace: Workspace) -> list[str]:
    """The folders of kernels/ that hold a kernel.yaml, sorted."""
    return sorted(path.parent.name for path in workspace.kernels.glob("*/kernel.yaml"))


def load_kernel_file(workspace: Workspace, slug: str) -> KernelFile:
    """Read kernels/<slug>/kernel.yaml.

    Raises:
        ConfigError: Unknown kernel, unreadable file, unknown key or a value that cannot be: one line with the cure.
    """
    if slug not in (known := kernel_names(workspace)):
        raise ConfigError(f"{slug}: no such kernel{did_you_mean(slug, known)}; there are: {', '.join(known) or 'none'}")
    label = f"{workspace.kernels.name}/{slug}/kernel.yaml"
    values = read_values(workspace.kernels / slug / "kernel.yaml", label)
    try:
        return KernelFile(**_checked(values))
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from error


def kernel_words(workspace: Workspace, slug: str) -> str:
    """The words of the notebook, kernels/<slug>/notebook.md.

    Raises:
        ConfigError: No such file, or nothing in it.
    """
    path = Path(workspace.kernels / slug / "notebook.md")
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not text:
        raise ConfigError(f"kernels/{slug}/notebook.md: missing or empty; say in a few lines what the notebook does")
    return text


def slugify(title: str) -> str:
    """The slug that Kaggle makes of a title: small letters and digits, everything else one hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    types = get_type_hints(KernelFile)
    checked: dict[str, Any] = {known.name: [] for known in fields(KernelFile) if types[known.name] == list[str]}
    for key, value in values.items():
        if key not in types:
            hint = did_you_mean(str(key), types) or f"; known are {', '.join(types)}"
            raise ValueError(f"{key}: no such key{hint}")
        checked[key] = _texts(key, value) if types[key] == list[str] else _scalar(key, value, types[key])
    for known in fields(KernelFile):
        if known.default is MISSING and known.name not in checked:
            raise ValueError(f"{known.name}: missing; a kernel cannot do without")
    return checked


def _texts(key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{key}: {shown(value)} is no list of texts; write [] or one '- text' per line")
    return value


def _scalar(key: str, value: object, annotation: object) -> object:
    try:
        return checked_value(value, str if annotation is KernelMode else annotation)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
