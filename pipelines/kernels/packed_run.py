"""A run as a kernel carries it: what predicting reads beside the weights, and of its record what is true anywhere."""

import json
from collections.abc import Iterable, Iterator

from components.files.digests import sealed
from pipelines.runs.digests import FILES
from pipelines.runs.directory import RunDirectory
from pipelines.runs.folds import expected_folds

# Nothing of when, where and on which machine.
RECORD_KEYS = (
    "run", "experiment", "competition", "status", "seed", "mode", "commit", "dirty", "source_sha256", "data_sha256",
    "folds_sha256", "fold_names", "grades", "num_train_rows", "vocabulary", "images", "versions",
)  # fmt: skip


def pack_run(run: RunDirectory, elsewhere: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The place in the run directory and the content of each file, but for those that travel `elsewhere`."""
    inside = set(elsewhere)
    for path in run.prediction_files():
        place = path.relative_to(run.path).as_posix()
        if place != run.record.name and place not in inside:
            inside.add(place)
            yield place, path.read_bytes()
    # The record of an older run does not name its folds, and its folds.csv does not travel along.
    record = run.read_record() | {"fold_names": expected_folds(run)}
    kept = {key: record[key] for key in RECORD_KEYS if key in record}
    if FILES in record:
        kept = sealed(kept | {FILES: {name: digest for name, digest in record[FILES].items() if name in inside}})
    yield run.record.name, (json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
