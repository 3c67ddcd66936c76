"""Finding MLflow's stores and what is in them: this workspace's, and the one where a run was made."""

import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import Timeout

from pipelines.errors import PodiumError
from pipelines.tracking.mlflow.database import patiently, prepare_uri, tracking_uri
from pipelines.tracking.mlflow.sending import describe_error, without_password
from pipelines.tracking.mlflow.words import is_missing_sqlite
from pipelines.tracking.place import TrackingPlace
from pipelines.workspace import Workspace

# It prints a traceback for every "database is locked", which is expected here and tried again.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

_HOPELESS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}


@dataclass(frozen=True)
class Home:
    """A run of a store, and the way to it."""

    client: MlflowClient
    uri: str
    run: Run


def find_home(workspace: Workspace, place: TrackingPlace, *, only_here: bool = False) -> Home:
    """Where a run is kept: in the store of this workspace if that knows it, else where it was made.

    Raises PodiumError where neither knows it, or one of them cannot be asked.
    """
    here = tracking_uri(workspace)
    places = [here]
    if place.uri and place.uri != without_password(here) and not is_missing_sqlite(place.uri) and not only_here:
        places.append(place.uri)
        if is_missing_sqlite(here):
            places.remove(here)  # to ask would make it
    for uri in places:
        client = connect(uri, workspace)
        run = patiently(lambda client=client: find_run(client, str(place.run_id)))  # type: ignore[misc]
        if run is not None:
            return Home(client, uri, run)
    known = " nor in ".join(without_password(uri) for uri in places)
    raise PodiumError(f"MLflow run {place.run_id} is not in {known}: set MLFLOW_TRACKING_URI to its home")


def connect(uri: str, workspace: Workspace) -> MlflowClient:
    """A client of a store that answers. Raises PodiumError where it does not, or its schema is an older one."""
    try:
        prepare_uri(uri, workspace)
        client = MlflowClient(uri)
        patiently(lambda: client.search_experiments(max_results=1))
    except PodiumError:
        raise
    except Exception as error:
        raise unusable(uri, error) from error
    return client


def experiment_id_of(client: MlflowClient, uri: str, workspace: Workspace, name: str) -> str:
    """The MLflow experiment of this name, made where it is missing."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server knows best where its artifacts lie; a database on its own would put them under the working directory.
        is_server = urlsplit(uri).scheme in ("http", "https")
        location = None if is_server else (workspace.root.absolute() / "mlartifacts" / name).as_uri()
        try:
            return str(client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another training may have been faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        cure = f"restore it with `mlflow experiments restore -x {found.experiment_id}`"
        raise PodiumError(f"the MLflow experiment {name!r} was deleted: {cure}")
    return str(found.experiment_id)


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """None for a run that the store does not know, or that was deleted."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def unusable(uri: str, error: Exception) -> PodiumError:
    """The one line for a store that cannot be used."""
    cure = "check MLFLOW_TRACKING_URI, or track into files with tracking.name=jsonl"
    return PodiumError(f"MLflow at {without_password(uri)} cannot be used: {describe_error(error)}; {cure}")


def is_hopeless(error: Exception) -> bool:
    """Whether no second try can cure it; everything else may be a lock or a server that is away."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", None) in _HOPELESS


def is_away(error: Exception) -> bool:
    """Whether the store did not answer at all, so that the next request would wait in vain as well."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NoConnection | Timeout):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
