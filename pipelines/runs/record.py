"""run.json, which makes a run rebuildable: written before training starts, completed at its end; and a fold's result."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

from pydantic import AfterValidator, BeforeValidator, PositiveInt

from components.files.atomic import write_json
from components.files.digests import OWN_DIGEST, check_seal, read_object, read_unsealed, sealed
from pipelines.addresses import RecordedKernel
from pipelines.errors import PodiumError
from pipelines.modes import REAL, check_mode, name_mode
from pipelines.tracking.place import TrackingPlace
from pipelines.records import Commit, DamagedRecord, Digest, ExperimentName, Name, Place, Record

RUN_JSON = "run.json"


TrialMode = Annotated[str, BeforeValidator(check_mode)]


class RunStatus(StrEnum):
    """How far a run is. DAMAGED stands in no file: it is how a run is listed whose files cannot be believed."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class Machine(Record):
    """What equal bits depend on beside the versions."""

    system: str | None = None
    processor: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    torch_threads: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class VocabularyFacts(Record):
    """The size of a run's vocabulary, and of the one that it was trimmed from."""

    num_pieces: int
    num_pieces_untrimmed: int | None = None


@dataclass(frozen=True, kw_only=True)
class CountedTexts(Record):
    """Texts that a limit cuts or, of labels, that the vocabulary cannot write; `note` is for people to hear of."""

    num_rows: int
    num_unspellable: int | None = None
    num_cut: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Normalisation(Record):
    """Mean and standard deviation of each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ImageFacts(Record):
    """How pixels are normalised, and by `training` and `test` which images cannot be used: row id to reason."""

    normalisation: Normalisation
    num_skipped: Mapping[str, int]
    skipped: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Init(Record):
    """The run that a training took its first weights from."""

    experiment: ExperimentName
    run: Name
    mode: str | None = None
    checkpoint: Place
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Origin(Record):
    """The version of a kernel that left an imported run; nothing for a run that came as a folder."""

    kernel: RecordedKernel | None = None
    version: PositiveInt | None = None


class Prepared(TypedDict, total=False):
    """What a family of models says of its inputs before the first step, for the run's record."""

    vocabulary: VocabularyFacts
    images: ImageFacts
    labels: CountedTexts
    inputs: CountedTexts
    column_kinds: Mapping[str, tuple[str, ...]]
    init_from: Init


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """The content of run.json. A field that an older version did not write is None."""

    run: Name
    experiment: ExperimentName
    competition: str = ""
    status: RunStatus = RunStatus.RUNNING
    command: tuple[str, ...] = ()
    started: str | None = None
    commit: Commit | None = None
    branch: str | None = None
    dirty: bool | None = None
    git_problem: str | None = None
    source_sha256: Digest | None = None
    versions: Mapping[str, str] | None = None
    machine: Machine | None = None
    mode: TrialMode | None = None
    """None for a real run."""
    seed: int | None = None
    data_sha256: Mapping[str, Digest] | None = None
    folds_sha256: Digest | None = None
    fold_names: Annotated[tuple[str, ...], AfterValidator(lambda names: _filled(names))] | None = None
    num_train_rows: int | None = None
    grades: tuple[int, int] | None = None
    vocabulary: VocabularyFacts | None = None
    images: ImageFacts | None = None
    labels: CountedTexts | None = None
    inputs: CountedTexts | None = None
    column_kinds: Mapping[str, tuple[str, ...]] | None = None
    init_from: Init | None = None
    kernel: str | None = None
    files_sha256: Mapping[Place, str] | None = None
    """The digest of each file that the run's folds share or that it made; None in runs of older versions."""
    tracking: TrackingPlace | None = None
    memory_plans: Mapping[str, Mapping[str, Any]] | None = None
    finished: str | None = None
    wall_seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None
    imported: Origin | None = None

    @property
    def mode_name(self) -> str:
        """ "real", "smoke" or "overfit"."""
        return self.mode or REAL

    @property
    def trial(self) -> str:
        """ "a smoke run" or "an overfit run"; "" for a real one."""
        return name_mode(self.mode_name)

    @property
    def dirty_word(self) -> str:
        """What trackers are told of uncommitted changes: true, false or unknown."""
        return "unknown" if self.dirty is None else str(self.dirty).lower()

    @property
    def has_digests(self) -> bool:
        """Whether the run's files can be held against the record."""
        return self.files_sha256 is not None

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in run.json, entry by entry and then against its own digest. Raises DamagedRecord."""
        return cls._parse_object(_read_object(path), path)

    @classmethod
    def _parse_object(cls, content: Mapping[str, Any], path: Path) -> Self:
        # What a folder says stands in for names that hand-made records lack.
        names = {"run": path.parent.name, "experiment": path.parent.parent.name}
        record = cls.of({**names, **content}, path)
        try:
            check_seal(content, path, is_required=record.has_digests)
        except ValueError as error:
            raise DamagedRecord(str(error)) from None
        return record

    def write(self, path: Path) -> None:
        """Write run.json with the digest of its entries."""
        write_json(path, sealed(self.entries()))


@dataclass(frozen=True, kw_only=True)
class FoldResult(Record):
    """The content of a fold's result.json: a fold that has one is done. Its scores stand among the other entries."""

    checkpoint: Place
    num_steps: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    files_sha256: Mapping[Place, str] | None = None
    """The digests of predictions, curves and the checkpoint's own digests; None in folds of older versions."""

    @classmethod
    def from_file(cls, path: Path, *, has_digests: bool) -> Self:
        """Raises ValueError, and DamagedRecord with the field, for a file that is missing or damaged."""
        content = read_object(path, is_required=has_digests)
        known = {key: content[key] for key in ("checkpoint", "num_steps", "files_sha256") if key in content}
        scores = {key: value for key, value in content.items() if key not in {*known, OWN_DIGEST}}
        return cls.of(known | {"scores": scores}, path)

    def write(self, path: Path) -> None:
        """Write result.json with the digest of its entries."""
        entries = self.entries()
        scores = entries.pop("scores", {})
        write_json(path, sealed({"checkpoint": self.checkpoint, "num_steps": self.num_steps, **scores, **entries}))


def update_record(path: Path, **changes: Any) -> RunRecord:  # noqa: ANN401 - as `dataclasses.replace`
    """Change fields of run.json, atomically; entries that this version does not know stay. Returns the record."""
    content = _read_object(path)
    record = replace(RunRecord._parse_object(content, path), **changes)
    known = {entry.name for entry in fields(RunRecord)}
    others = {key: value for key, value in content.items() if key not in known and key != OWN_DIGEST}
    write_json(path, sealed(record.entries() | others))
    return record


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise PodiumError(f"{path.parent} is no run directory: it has no {RUN_JSON}")
    try:
        return read_unsealed(path)
    except ValueError as error:
        raise DamagedRecord(str(error)) from None


def _filled(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("() is no list of folds; needs fold0, fold1, … or full")
    return names
