"""Where a run is tracked, as run.json keeps it under `tracking`."""

from dataclasses import dataclass
from enum import StrEnum

from pipelines.records import Record


class Backend(StrEnum):
    """Where values go: a store of MLflow's, JSON lines in the run directory, or nowhere."""

    MLFLOW = "mlflow"
    JSONL = "jsonl"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TrackingPlace(Record):
    """What finds a tracked run again."""

    backend: Backend
    run_id: str | None = None
    """The backend's own name of the run."""
    uri: str | None = None
    """A tracking URI without credentials, or a folder."""


NOT_TRACKED = TrackingPlace(backend=Backend.NONE)
