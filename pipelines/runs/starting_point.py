"""Where a training starts when it goes on from another run: that run's weights and vocabulary, made this run's own.

The weights are linked rather than copied where the disk allows it: a checkpoint is never written to once it stands.
"""

import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from components.data.text.vocabulary import load_vocabulary
from components.files.linking import link_or_copy
from components.files.digests import file_digest
from pipelines.config.experiment_file import read_values
from pipelines.config.sections.section import RUN_PREFIX
from pipelines.runs.digests import check_shared_files
from pipelines.runs.run import NEVER_READ_AGAIN, WEIGHTS, Run
from pipelines.runs.folds import expected_folds
from pipelines.runs.record import Init, Prepared
from pipelines.errors import PodiumError

def take_over(
    checkpoint: str,
    run: Run,
    *,
    kinds: Collection[str],
    read_vocabulary: Callable[[Path], object] = load_vocabulary,
) -> Prepared:
    """Link the weights that `checkpoint` means into `run`, copy their vocabulary, and say what they are for run.json.

    `checkpoint` is "run:" and an experiment (its newest finished real run) or a run's id (whatever its mode, finished
    or not), with "/fold1" behind it for another fold than the first; `kinds` are the `model.name`s whose weights serve.
    Raises PodiumError where there is no such run or fold, for a run of another kind, and whatever `read_vocabulary`
    does for a vocabulary that is none.
    """
    name, fold = _split_fold(checkpoint.removeprefix(RUN_PREFIX))
    source = Run.of_name(run.path.parents[1], name)
    check_shared_files(source.path, source.read_record(), but=NEVER_READ_AGAIN)
    checkpoints = {path.relative_to(source.path).parts[0]: path for path in source.trained_checkpoints()}
    chosen = fold or next(iter(expected_folds(source) or checkpoints))
    if chosen not in checkpoints:
        raise PodiumError(f"{checkpoint}: {source.path} has no finished {chosen}; it has {', '.join(checkpoints)}")
    kind = read_values(source.config_file, str(source.config_file))["model"]["name"]
    if kind not in kinds:
        raise PodiumError(f"{checkpoint}: {source.path} is a run of model {kind}; name a run of {' or '.join(kinds)}")
    folder = checkpoints[chosen]
    vocabulary = source.path / "vocabulary"
    shutil.copytree(vocabulary, run.path / "vocabulary", dirs_exist_ok=True)
    read_vocabulary(run.path / "vocabulary")
    shutil.copytree(folder, run.path / WEIGHTS, copy_function=link_or_copy)
    return {
        "init_from": Init(
            experiment=source.experiment,
            run=source.id,
            mode=source.record.mode,
            checkpoint=folder.relative_to(source.path).as_posix(),
            sha256=file_digest(folder / "model.safetensors"),
        )
    }


def _split_fold(name: str) -> tuple[str, str | None]:
    """ "smoke/mt5_multinli/fold1" -> the experiment as its runs are named, and the fold if one is said."""
    *parts, last = name.split("/")
    if parts and re.fullmatch(r"fold\d+|full", last):
        return "_".join(parts), last
    return "_".join([*parts, last]), None
