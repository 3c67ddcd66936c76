"""Which run of its own former output a training kernel goes on with."""

import pytest
from project import ROOT
from tiny_competition import make_run

from pipelines.addresses import KernelName
from pipelines.config.load import load_experiment, resolve_yaml
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.kernels.plan import Plan
from pipelines.kernels.session import _former_run
from pipelines.workspace import Workspace

RUN, KERNEL = "20261121-100000-bbbb", KernelName("alice", "tiny-kernel")
MOUNT = KERNEL.output_mount
PLAN = Plan(
    format=1, kernel=KERNEL, mode=KernelMode.TRAIN, competition="bbc_headlines", experiment="bbc_headlines_linear",
    run=None, data="competitions/bbc", weights=None, wheels=None, resume_from=(MOUNT,), folds_sha256="0" * 64,
    source_sha256="0" * 64, accelerator="none", accelerator_kind=Machine.CPU, train_seconds=60.0, run_mode=None,
)  # fmt: skip


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
    run = _former_run(PLAN, tmp_path / "input", tmp_path / "runs", experiment, tmp_path, wanted)
    assert (run is not None) == is_gone_on_with
    assert ("or a run of another mode; not gone on with" in capsys.readouterr().out) != is_gone_on_with
