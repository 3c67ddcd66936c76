"""`podium tracking prepare`: the database, made once at set-up because its first creation takes seconds."""

from pipelines.tracking.mlflow.database import prepare_database
from pipelines.workspace import Workspace


def prepare(workspace: Workspace) -> None:
    """Create MLflow's database unless it exists, and remove what a kill left of making it."""
    prepare_database(workspace)
