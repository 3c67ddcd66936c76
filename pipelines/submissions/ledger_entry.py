"""The record of one submission: all that went into it and what it earned, in the order in which it is made again.

Whoever wrote ledger/ is not always whoever reproduces from it, and names, places and digests of a record become paths,
arguments and variables of the environment: the type of each field says what it may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator

from pipelines import names
from pipelines.errors import PodiumError
from pipelines.kernels.submitted_kernel import KeptDiff, SubmittedKernel
from pipelines.records import Commit, DataFile, Digest, ExperimentName, Name, Place, Record, Time, Version
from pipelines.runs.record import Machine, TrialMode
from pipelines.runs.submission import Host, Scores, SentDigest, Status
from pipelines.tracking.place import TrackingPlace

# Entries that a record of an older version may lack, and without which nothing can be made again.
_NEEDED = ("experiment", "competition", "source_sha256", "data_sha256", "config_sha256", "files_sha256")
_NEEDED_TOO = ("weights_sha256", "versions", "machine")


def _ref(value: str) -> str:
    host, _, rest = names.name(value).partition(":")
    place, _, number = rest.rpartition(":")
    is_sound = number.isdecimal() and number.isascii() and bool(place) == (host == Host.LOCAL)
    if host not in list(Host) or not is_sound:
        raise ValueError(f"{names.shown(value)} is no ref; needs kaggle:1234, or local:place_names:3")
    return value


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(Record):
    """What decides the bytes comes first: `podium reproduce` names the first line that differs.

    A digest is missing where there is no such file. `submission_sha256` is "" where the file is only on Kaggle.
    """

    time: Time = ""
    ref: Annotated[str, AfterValidator(_ref)]
    host: Host
    competition: Name = ""
    experiment: ExperimentName = ""
    run: Name
    description: str = ""
    command: tuple[str, ...] = ()
    mode: TrialMode | None = None
    commit: Commit | None = None
    diff: KeptDiff | None = None
    source_sha256: Digest | None = None
    data_sha256: Mapping[DataFile, Digest] = field(default_factory=dict)
    folds_sha256: Digest | None = None
    config_sha256: Digest = ""
    files_sha256: Mapping[Place, Digest] = field(default_factory=dict)
    weights_sha256: Mapping[Place, Digest] | None = None
    seed: int | None = None
    versions: Mapping[Name, Version] = field(default_factory=dict)
    machine: Machine | None = None
    wall_seconds: float | None = None
    cv: Scores = field(default_factory=dict)
    tracking: TrackingPlace | None = None
    kernel: SubmittedKernel | None = None
    submission_sha256: SentDigest | None = None
    status: Status | None = None
    public: Scores = field(default_factory=dict)
    private: Scores = field(default_factory=dict)
    error: str = ""
    place: int | None = None

    @property
    def number(self) -> int:
        """The host's own number of the submission."""
        return int(self.ref.rsplit(":", 1)[-1])

    @property
    def address(self) -> str:
        """The ref with the run, which two clones do not both give."""
        return f"{self.ref}@{self.run}"

    @property
    def source(self) -> "LedgerEntry | SubmittedKernel":
        """What holds `commit`, `diff` and `source_sha256` of the code that made the submission.

        It is the kernel where one predicted and its commit is known, else the run.
        """
        kernel = self.kernel
        return kernel if kernel is not None and kernel.mode == "predict" and kernel.commit else self

    @property
    def weights(self) -> Mapping[str, str]:
        """The digests of the files of weights."""
        return self.weights_sha256 or {}

    def check_whole(self) -> None:
        """Raise a PodiumError for a record without an entry that making the submission again needs."""
        missing = [name for name in (*_NEEDED, *_NEEDED_TOO) if getattr(self, name) in (None, "", {})]
        missing = [name for name in missing if name != "weights_sha256" or self.weights_sha256 is None]
        missing += ["submission_sha256"] if self.submission_sha256 is None else []
        if missing:
            cure = "make the submission again from a version of podium that writes it, or submit the run once more"
            raise PodiumError(f"{self.ref}: the record has no {missing[0]}; {cure}")
        if self.source.commit is None:
            reason = "its run was not made in a checkout that git could read"
            raise PodiumError(f"{self.ref}: the record has no commit; {reason}")

    def training_words(self) -> list[str]:
        """The recorded command from `train` on, without --root. Raises PodiumError for another one and an option."""
        words = list(self.command)
        if "train" not in words:
            raise PodiumError(f"{self.ref}: its run was not begun by `podium train` but by `{' '.join(words)}`")
        words = words[words.index("train") :]
        if option := next((word for word in words if word.startswith("-")), None):
            raise PodiumError(
                f"{self.ref}: command: {option!r} is an option; a training takes a name and key=value only"
            )
        return words

    def tags(self) -> dict[str, str]:
        """What of it stands on the tracker's run, to search by."""
        tags = {
            "ledger.ref": self.ref,
            "ledger.submission_sha256": self.submission_sha256 or "",
            "ledger.config_sha256": self.config_sha256,
            "ledger.source_sha256": str(self.source_sha256),
            "ledger.weights_sha256": ", ".join(sorted(self.weights.values())),
        }
        if self.kernel is not None:
            tags |= {
                "ledger.kernel": f"{self.kernel.kernel}/{self.kernel.version}",
                "ledger.bundle_sha256": self.kernel.bundle_sha256,
            }
        return tags
