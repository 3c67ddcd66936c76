"""What several unit tests share."""

import io
import time

import pytest
from kaggle_faults import KERNEL, KEY
from kaggle_standin import KaggleStandIn, Script, StandInCompetition, connect, sign_in
from rich.console import Console

from pipelines.errors import PodiumError
from pipelines.kaggle.retries import Retries
from pipelines.kernels.pushing import push as push_stage
from pipelines.kernels.pushing.push import push
from pipelines.workspace import Workspace


@pytest.fixture(scope="session")
def database_template(tmp_path_factory):
    """An empty MLflow database: the migrations take seconds, a copy a tenth of one."""
    from pipelines.tracking.mlflow.tracker import prepare_database

    return prepare_database(Workspace(tmp_path_factory.mktemp("template")))


# -- what goes wrong on the way to Kaggle ----------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A stand-in whose kernel ends at once and well."""
    sign_in(monkeypatch, tmp_path / "home", key=KEY)
    contest = StandInCompetition({"test.csv": b"id\n1\n"})
    with KaggleStandIn({"tiny-task": contest}, log=tmp_path / "requests.jsonl") as server:
        server.keys["alice"] = KEY
        server.kernels.scripts[KERNEL] = Script(("done",), files={"submission.csv": b"id,label\n1,0\n"})
        connect(monkeypatch, server)
        yield server


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def no_key_anywhere(tmp_path, capfd):
    """After the test nothing that it wrote or printed holds the key."""
    yield
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


@pytest.fixture
def naps():
    """The pauses that were taken, in seconds; none of them is waited for."""
    return []


@pytest.fixture
def retries(naps):
    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(0.005)

    return Retries(sleep=nap)


@pytest.fixture
def run_push(workspace, retries):
    def run(**options):
        return push(workspace, "tiny-kernel", retries=retries, console=Console(file=io.StringIO()), **options)

    return run


@pytest.fixture
def unchecked(monkeypatch):
    """A push without the preflight, to hear what Kaggle itself says of what that would have found."""
    monkeypatch.setattr(push_stage, "_hold_against_rules", lambda question: None)


@pytest.fixture
def error_of(run_push):
    """The one line with which an action, by default the push, fails."""

    def message(action=run_push, **options) -> str:
        with pytest.raises(PodiumError) as error:
            action(**options)
        assert "\n" not in str(error.value)
        assert KEY not in str(error.value)
        return str(error.value)

    return message
