"""`podium tracking prepare`: the database, made once at set-up because its first creation takes seconds."""

from pipelines.workspace import Workspace


def prepare(workspace: Workspace) -> None:
    """Create MLflow's database unless it exists."""
    if workspace.mlflow_db.exists():
        return
    from pipelines.tracking.mlflow.tracker import prepare_database

    prepare_database(workspace)
