"""Which run of its own former output a training kernel goes on with."""

import pytest
from project import ROOT
from tiny_competition import make_run

from pipelines.config.load import load_experiment, resolve_yaml
from pipelines.kernels.session import _former_run
from pipelines.workspace import Workspace

RUN, MOUNT = "20261121-100000-bbbb", "notebooks/alice/tiny-kernel"


@pytest.mark.parametrize(
    ("former", "wanted", "is_gone_on_with"),
    [(None, None, True), ("smoke", "smoke", True), ("smoke", None, False), (None, "smoke", False)],
)
def test_a_smoke_run_is_not_gone_on_with_as_a_real_one(tmp_path, former, wanted, is_gone_on_with, capsys):
    """An experiment without steps is configured in a smoke run as it is in a real one."""
    experiment = load_experiment(Workspace(ROOT), "bbc_headlines_linear")
    assert experiment.training is None
    folder = make_run(Workspace(tmp_path / "input" / MOUNT), RUN, mode=former, data_sha256={})
    (folder / "config.yaml").write_text(resolve_yaml(experiment))
    run = _former_run({"resume_from": [MOUNT]}, tmp_path / "input", tmp_path / "runs", experiment, tmp_path, wanted)
    assert (run is not None) == is_gone_on_with
    assert ("or a run of another mode; not gone on with" in capsys.readouterr().out) != is_gone_on_with
