"""A run as a kernel carries it: what predicting reads beside the weights, and of its record what is true anywhere."""

import json
from collections.abc import Iterable, Iterator

from components.files.digests import sealed
from pipelines.runs.folds import expected_folds
from pipelines.runs.record import RunRecord
from pipelines.runs.run import Run


def pack_run(run: Run, elsewhere: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The place in the run directory and the content of each file, but for those that travel `elsewhere`."""
    inside = set(elsewhere)
    for path in run.prediction_files():
        place = path.relative_to(run.path).as_posix()
        if place != run.record_file.name and place not in inside:
            inside.add(place)
            yield place, path.read_bytes()
    record = run.read_record()
    kept = _true_anywhere(record, expected_folds(run)).entries()
    if record.files_sha256 is not None:
        digests = {name: digest for name, digest in record.files_sha256.items() if name in inside}
        kept = sealed(kept | {"files_sha256": digests})
    yield run.record_file.name, (json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _true_anywhere(record: RunRecord, folds: list[str]) -> RunRecord:
    """The record without when, where and on which machine; its files' digests are the caller's.

    The record of an older run does not name its folds, and its folds.csv does not travel along.
    """
    return RunRecord(
        run=record.run,
        experiment=record.experiment,
        competition=record.competition,
        status=record.status,
        seed=record.seed,
        mode=record.mode,
        commit=record.commit,
        dirty=record.dirty,
        source_sha256=record.source_sha256,
        data_sha256=record.data_sha256,
        folds_sha256=record.folds_sha256,
        fold_names=tuple(folds) or None,
        grades=record.grades,
        num_train_rows=record.num_train_rows,
        vocabulary=record.vocabulary,
        images=record.images,
        versions=record.versions,
    )
