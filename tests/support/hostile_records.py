"""A record of the ledger as others may have written it, in a checkout beside a folder that nothing may touch."""

import json
from dataclasses import replace

from tiny_competition import write_lines

from components.files.digests import sealed
from pipelines.submissions.ledger import Ledger

REF, RUN = "local:tiny_task:1", "20261121-100000-bbbb"
SHA = "a" * 64
RECORD = {
    "event": "submitted",
    "time": "2026-11-21T12:00:00+00:00",
    "ref": REF,
    "host": "local",
    "competition": "tiny_task",
    "experiment": "smoke_first_try",
    "run": RUN,
    "command": ["podium", "train", "first_try", "seed=2"],
    "mode": None,
    "commit": "c" * 40,
    "diff": {"sha256": SHA, "secrets_removed": 0},
    "source_sha256": SHA,
    "data_sha256": {"train.csv": SHA, "images/0.npy": SHA},
    "folds_sha256": SHA,
    "config_sha256": SHA,
    "files_sha256": {"fold0/result.json": SHA, "run.json": SHA},
    "weights_sha256": {"fold0/checkpoints/step-00000002/model.safetensors": SHA},
    "versions": {"python": "3.11.2", "torch": "2.14.1+cpu"},
    "machine": {"torch_threads": 2, "gpus": []},
    "tracking": None,
    "kernel": {
        "kernel": "alice/tiny-kernel",
        "version": 1,
        "mode": "predict",
        "source_sha256": SHA,
        "bundle_sha256": SHA,
        "files": {"tiny-kernel.ipynb": SHA},
        "dataset_versions": {},
        "docker_image": None,
        "commit": "c" * 40,
        "diff": None,
        "built_with": {"resume": False, "mode": None},
        "files_sha256": {"folds.csv": SHA},
        "datasets": [],
    },
    "submission_sha256": SHA,
}
OMITTED = "no such entry"


def write_record(workspace, **changes):
    """As whoever writes it by hand would, with a digest of its own that fits."""
    path = workspace.ledger / "local" / "tiny_task" / f"1@{RUN}.json"
    content = {key: value for key, value in (RECORD | changes).items() if key != "event" and value != OMITTED}
    return write_lines(path, json.dumps(sealed(content)))


def entry_of(workspace, **changes):
    write_record(workspace)
    return replace(Ledger(workspace.ledger).find(REF), **changes)
