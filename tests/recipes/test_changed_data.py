"""Data that change between a kill and its resume are refused by name, in whatever form they lie there."""

import gzip

import pytest
from podium_processes import killed_podium, only_run

from pipelines.cli import main
from pipelines.runs.run import Run
from pipelines.training.execution import check_data

pytestmark = pytest.mark.processes

EXPERIMENT = "smoke/xcit_small_finetune"
MOMENT = ("components.training.loop:TrainingLoop._step", 6)


def test_a_changed_image_and_a_changed_packed_table_are_refused(workspace, leaves, capsys):
    packed = leaves / "train.csv.gz"
    packed.write_bytes(gzip.compress((leaves / "train.csv").read_bytes()))
    (leaves / "train.csv").unlink()
    killed_podium(workspace.root, MOMENT, "train", EXPERIMENT, "tracking.name=none", "training.num_threads=1")
    other = (leaves / "train_images" / "001.jpg").read_bytes()
    for path, name in ((packed, "train.csv.gz"), (leaves / "train_images" / "000.jpg", "train_images/")):
        before = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(before)[:-2] + b"0\n") if path == packed else other)
        with pytest.raises(SystemExit):
            main(["--root", str(workspace.root), "resume", EXPERIMENT])
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith(f"podium: {name}: ")
        assert f"since {only_run(workspace).name} started" in message
        path.write_bytes(before)
    run = Run(only_run(workspace))
    check_data(run.read_record(), leaves, run)  # the former files are taken again
