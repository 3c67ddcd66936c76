"""Where a run's parameters, curves and artefacts are recorded."""

from dataclasses import dataclass
from typing import ClassVar

from pipelines.config.checks import above
from pipelines.config.sections.section import Section


@dataclass(frozen=True, kw_only=True)
class MLflow(Section):
    """MLflow at MLFLOW_TRACKING_URI, or in the checkout's mlflow.db."""

    name: ClassVar[str] = "mlflow"

    flush_seconds: float = 10.0
    """Seconds that values wait in the buffer; a write to sqlite costs tens of milliseconds however many it holds."""
    system_metrics: bool = True
    """Record the load of processor, memory and GPU."""

    def __post_init__(self) -> None:
        above(self, 0, "flush_seconds")


@dataclass(frozen=True, kw_only=True)
class JsonLines(Section):
    """Lines of JSON in the run directory, for machines without MLflow."""

    name: ClassVar[str] = "jsonl"


@dataclass(frozen=True, kw_only=True)
class NoTracking(Section):
    """Nothing beside the run directory."""

    name: ClassVar[str] = "none"
