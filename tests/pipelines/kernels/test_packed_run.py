"""What of a run's record travels into a kernel: all that prediction reads, with digests that hold there."""

import json

import pytest
from tiny_competition import make_run, write_lines

from components.files.digests import check_seal, sealed
from pipelines.kernels.packed_run import pack_run
from pipelines.runs.digests import digest_files
from pipelines.runs.run import Run
from pipelines.workspace import Workspace


@pytest.fixture
def run(tmp_path):
    """A finished run of one fold whose weights travel elsewhere."""
    folder = make_run(Workspace(tmp_path), "20261121-100000-bbbb", fold_names=["fold0"], grades=[0, 4], mode=None)
    write_lines(folder / "fold0" / "result.json", json.dumps(sealed({"checkpoint": "checkpoints/step-1"})))
    write_lines(folder / "fold0" / "checkpoints" / "step-1" / "model.safetensors", "weights")
    write_lines(folder / "vocabulary" / "pieces.txt", "a")
    return Run(folder)


def test_the_record_holds_what_prediction_reads(run):
    packed = dict(pack_run(run, ["fold0/checkpoints/step-1/model.safetensors"]))
    assert sorted(packed) == ["config.yaml", "fold0/result.json", "run.json", "vocabulary/pieces.txt"]
    record = json.loads(packed["run.json"])
    assert (record["grades"], record["fold_names"], record.get("mode")) == ([0, 4], ["fold0"], None)
    assert not {"started", "finished", "wall_seconds", "tracking"} & record.keys()


def test_digests_are_those_of_what_is_carried(run):
    digests = digest_files(run.path, ["config.yaml", "vocabulary/pieces.txt"])
    run.update_record(files_sha256={**digests, "folds.csv": "0" * 64})
    record = json.loads(dict(pack_run(run, ()))["run.json"])
    assert record["files_sha256"] == digests
    check_seal(record, "run.json", is_required=True)
