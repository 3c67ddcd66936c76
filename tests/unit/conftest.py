"""What several unit tests share."""

import pytest

from pipelines.config.workspace import Workspace


@pytest.fixture(scope="session")
def database_template(tmp_path_factory):
    """An empty MLflow database: the migrations take seconds, a copy a tenth of one."""
    from pipelines.adapters.mlflow_tracker import prepare_database

    return prepare_database(Workspace(tmp_path_factory.mktemp("template")))
