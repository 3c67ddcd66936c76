"""What a kernel's last cell calls: a run's prediction, or a training, on whatever machine Kaggle gives.

The cell hands in the folders, so nothing here knows /kaggle. What was packed beside the source tells what to do:
`kernel/kernel.json` (the plan), `kernel/folds.txt`, `kernel/run/` (the small files of the run).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files.digests import file_digest
from pipelines.errors import PodiumError
from pipelines.kernels.inputs import find_input, has_input
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.kernels.plan import FOLDS, PLAN, RUN, Plan, WeightsInput, WheelsInput

if TYPE_CHECKING:
    from pipelines.competitions.competition import Competition
    from pipelines.config.schema import Experiment
    from pipelines.runs.run import Run
    from pipelines.training.training_run import RunContext

REHEARSAL, TIME_LIMIT = "PODIUM_REHEARSAL", "PODIUM_TIME_LIMIT_S"
SHOWN_ROWS = 5


def run_session(bundle: Path, *, inputs: Path, working: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Carry out the plan in `bundle` and leave submission.csv in `working`; `inputs` holds what Kaggle mounted.

    A rehearsal sets PODIUM_REHEARSAL, under which a missing GPU is no error and a training is cut to a few steps, and
    PODIUM_TIME_LIMIT_S, the seconds after which a training stops. Raises PodiumError for an input that is missing or
    not the one the kernel was built for.
    """
    started = time.monotonic()
    plan = Plan.read(bundle / PLAN)
    if plan.wheels is not None:
        _install_wheels(plan.wheels, inputs)
    _check_accelerator(plan, environment)
    # Found by what the plan says, not by a folder's content: a rerun puts another test set there.
    data_dir = find_input(inputs, plan.data)
    print(f"{plan.competition}: data in {data_dir}")
    submission = working / "submission.csv"
    if plan.mode is KernelMode.PREDICT:
        _predict(plan, bundle, inputs, data_dir, submission)
    else:
        _train(plan, bundle, inputs, data_dir, submission, environment)
    if submission.exists():
        _show(submission, time.monotonic() - started)


def _install_wheels(given: WheelsInput, inputs: Path) -> None:
    """Put the wheels that the image lacks onto the path, from the dataset and without an index."""
    folder, target = find_input(inputs, given.mount), tempfile.mkdtemp(prefix="podium-wheels-")
    wheels = [str(folder / name) for name in given.files]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    result = subprocess.run([*command, *wheels], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PodiumError(f"{folder}: the wheels cannot be installed: {result.stderr.strip().splitlines()[-1]}")
    sys.path.insert(0, target)
    print(f"installed {len(wheels)} wheels from {folder}")


def _check_accelerator(plan: Plan, environment: Mapping[str, str]) -> None:
    """Kaggle hands out another machine without a word when it has not the one that was asked for."""
    import torch

    found = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"{os.cpu_count()} cores, {', '.join(found) or 'no GPU'}")
    if plan.accelerator_kind is Machine.GPU and not found and not environment.get(REHEARSAL):
        raise PodiumError(
            f"accelerator {plan.accelerator}: this session has no GPU; push again, or choose another in kernel.yaml"
        )


# -- prediction ------------------------------------------------------------------------------------------------------


def _predict(plan: Plan, bundle: Path, inputs: Path, data_dir: Path, submission: Path) -> None:
    from pipelines.training import prediction

    assert plan.weights is not None
    assert plan.run is not None
    with tempfile.TemporaryDirectory(prefix="podium-run-") as name:
        run_dir = Path(name) / plan.run
        lay_out_run(bundle / RUN, plan.weights, inputs, run_dir)
        print(f"{plan.experiment}: run {plan.run}")
        prediction.main(run_dir, data_dir, submission)


def lay_out_run(small_files: Path, weights: WeightsInput, inputs: Path, run_dir: Path) -> None:
    """Put a run directory together: its small files, and links to the weights under the paths they had.

    Raises PodiumError naming a file that is missing or of another run.
    """
    folder = find_input(inputs, weights.mount)
    shutil.copytree(small_files, run_dir)
    for name, entry in weights.files.items():
        source = folder / name
        if not source.is_file():
            raise PodiumError(f"{source}: missing; push the weights' dataset again and wait until it is ready")
        if file_digest(source) != entry.sha256:
            raise PodiumError(
                f"{source}: is of another run than this kernel was built from; the dataset's newest version was not "
                "ready when the kernel started: push the kernel again"
            )
        target = run_dir / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


# -- training --------------------------------------------------------------------------------------------------------


def _train(
    plan: Plan,
    bundle: Path,
    inputs: Path,
    data_dir: Path,
    submission: Path,
    environment: Mapping[str, str],
) -> None:
    """Start a run or go on with a former one; a training out of time ends well, with its state saved."""
    from components.training.loop import Interrupted
    from pipelines.competitions.loading import load_competition
    from pipelines.config.load import load_run_config
    from pipelines.config.modes import smoke_overrides
    from pipelines.modes import SMOKE
    from pipelines.runs.processes import join_processes
    from pipelines.runs.run import remove_resume_points
    from pipelines.training.execution import carry_out, sole_writer

    experiment = load_run_config(bundle / RUN)
    is_small = bool(environment.get(REHEARSAL))
    if is_small:
        experiment = load_run_config(bundle / RUN, smoke_overrides(experiment))
    competition = load_competition(experiment.competition)
    join_processes(experiment)
    runs = submission.parent / "runs"
    # A kernel that was built with SMOKE=1 trains a smoke run on Kaggle, too.
    mode = SMOKE if is_small else plan.run_mode
    run = _former_run(plan, inputs, runs, experiment, data_dir, mode) or _new_run(
        plan, bundle, runs, experiment, competition, data_dir, mode
    )
    limit = float(environment.get(TIME_LIMIT) or plan.train_seconds)
    try:
        with sole_writer(run, print):
            context = _open(plan, run, experiment, competition, data_dir, limit)
            print(f"{experiment.name}: run {run.path.name}, to end within {limit:.0f} s")
            metrics = carry_out(context)
    except PodiumError as error:
        if not isinstance(error.__cause__, Interrupted):
            raise
        print(f"{error.__cause__}: out of time, and saved; push again with --resume, and it goes on from here")
        return
    for name, value in metrics.items():
        print(f"{name}  {value:.4f}")
    remove_resume_points(run)
    shutil.copy2(run.submission_file, submission)


def _former_run(
    plan: Plan, inputs: Path, runs: Path, experiment: "Experiment", data_dir: Path, mode: str | None
) -> "Run | None":
    """The run that an attached output holds, copied to where it can go on; None where there is none of this experiment.

    What it was configured with must be the same to the last field, and so must its mode and the data: a smoke run of
    an experiment that has no steps is configured as a real one is.
    """
    from pipelines.config.load import resolve_yaml
    from pipelines.runs.run import Run, run_place
    from pipelines.training.execution import check_data

    outputs = [find_input(inputs, mount) for mount in plan.resume_from if has_input(inputs, mount)]
    records = sorted((path for output in outputs for path in output.glob("runs/*/*/run.json")), key=lambda p: p.parent)
    for former in (Run(path.parent) for path in reversed(records)):
        record = former.read_record()
        is_same = former.config_file.read_text(encoding="utf-8") == resolve_yaml(experiment)
        if is_same and record.mode == mode:
            check_data(record, data_dir, former)
            run = Run(run_place(runs, former.path.parent.name, former.id))
            shutil.copytree(former.path, run.path)
            _make_writable(run.path)
            run.check_files()
            print(f"going on with {former.path}")
            return run
        print(f"{former.path}: is configured otherwise, or a run of another mode; not gone on with")
    return None


def _make_writable(folder: Path) -> None:
    """Inputs are read-only, and a copy keeps that."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def _new_run(
    plan: Plan,
    bundle: Path,
    runs: Path,
    experiment: "Experiment",
    competition: "Competition",
    data_dir: Path,
    mode: str | None,
) -> "Run":
    from pipelines.training.execution import start_run

    folds = (bundle / FOLDS).read_text(encoding="ascii").split()
    run = start_run(
        runs,
        experiment,
        competition,
        data_dir,
        obtain_folds=lambda train: _restore_folds(train["id"].tolist(), folds, plan.folds_sha256),
        mode=mode,
    )
    run.update_record(kernel=str(plan.kernel))
    return run


def _restore_folds(ids: Sequence[str], folds: Sequence[str], expected: str) -> Any:  # noqa: ANN401  (numpy waits)
    """The folds that travelled along, row by row; PodiumError where train.csv is not the one they were made for."""
    import numpy as np

    from components.data.folds import fold_hash

    numbers = np.array([int(fold) for fold in folds], dtype=np.int64)
    if len(numbers) != len(ids) or fold_hash(ids, numbers) != expected:
        raise PodiumError(
            f"train.csv: has other rows ({len(ids)}) than the folds were made for ({len(numbers)}); build the kernel "
            "again from the data it will meet"
        )
    return numbers


def _open(
    plan: Plan,
    run: "Run",
    experiment: "Experiment",
    competition: "Competition",
    data_dir: Path,
    limit: float,
) -> "RunContext":
    from pipelines.runs.observer import Screen, StopWish
    from pipelines.tracking.jsonl import open_jsonl_tracker
    from pipelines.tracking.modes import for_mode, name_tracked
    from pipelines.training.execution import describe_run
    from pipelines.training.training_run import RunContext

    mode = run.read_record().mode_name
    name = name_tracked(f"{experiment.name} {run.path.name}", mode)
    opened = open_jsonl_tracker(run.path, competition=competition.kaggle_slug, run_name=name)
    opened.log_with_system_metrics()
    tracker = for_mode(opened, mode)
    describe_run(tracker, run, experiment, competition, data_dir)
    tracker.log_tags({"kernel": str(plan.kernel), "kernel.source_sha256": plan.source_sha256})
    return RunContext(experiment, competition, run, data_dir, tracker, Screen(), StopWish(limit))


def _show(submission: Path, seconds: float) -> None:
    """The first lines of what was written, for who opens the notebook."""
    lines = submission.read_text(encoding="utf-8").splitlines()
    print(f"{submission.name}: {len(lines) - 1:,} rows in {seconds:.0f} s")
    print("\n".join(f"  {line}" for line in lines[: SHOWN_ROWS + 1]))
