"""`podium find-lr`: a sweep on a real experiment, and nothing left of it but a picture."""

import pytest

from pipelines.cli import main

SMALL = ["data.vocabulary=character", "training.num_threads=1", "model.d_model=32", "model.d_ff=64"]


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def files_of(workspace):
    return {path.relative_to(workspace.root).as_posix() for path in workspace.root.rglob("*") if path.is_file()}


def test_a_sweep_prints_its_curve_and_leaves_only_a_picture(workspace, capsys):
    before = files_of(workspace)
    podium(workspace, "find-lr", "smoke/mt5_adafactor", *SMALL)
    printed = capsys.readouterr().out
    assert "falls fastest at optimizer.lr=" in printed
    assert len([line for line in printed.splitlines() if "e-0" in line]) >= 10
    # The fold file is the competition's, made once by whoever needs it first.
    left = {name for name in files_of(workspace) - before if not name.startswith("data/place-names/folds/")}
    assert left == {"build/find_lr/smoke/mt5_adafactor.png"}
    assert list(workspace.runs.glob("*/*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke/mt5_adafactor", "optimizer.lr=null", "optimizer.relative_step=true"], "makes its own"),
        (["smoke/mt5_adafacto"], "did you mean smoke/mt5_adafactor"),
        ([], "which experiment"),
    ],
)
def test_what_has_no_rate_is_refused(workspace, capsys, arguments, message):
    extra = ["schedule.name=constant", "schedule.num_warmup_steps=0", SMALL[0]] if "makes" in message else []
    with pytest.raises(SystemExit):
        podium(workspace, "find-lr", *arguments, *extra)
    assert message in capsys.readouterr().err
    assert list(workspace.runs.glob("*/*")) == []
