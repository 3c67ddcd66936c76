"""What is submitted: a run's file, or what a pushed version of a kernel left or is."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipelines.addresses import KernelVersion
from pipelines.competitions.competition import Competition
from pipelines.competitions.submission_file import FILE_NAME, check_submission, load_submission
from pipelines.errors import PodiumError
from pipelines.kernels.pushes import Push, PushLog
from pipelines.modes import OVERFIT, warn_of_mode
from pipelines.runs.digests import check_run_file
from pipelines.runs.folds import check_finished
from pipelines.runs.lock import check_unlocked
from pipelines.runs.record import Origin, RunStatus
from pipelines.runs.run import Run
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Offer:
    """What is submitted: a run's file, or with `kernel` the output of that version, as it was pulled."""

    run: Run
    path: Path
    kernel: KernelVersion | None = None
    push: Push | None = None

    @property
    def sha256(self) -> str:
        """Of the file; of a version whose output is not here, "" (Kaggle makes another one over the hidden rows)."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path.is_file() else ""


def chosen_offer(
    workspace: Workspace,
    experiment: str | None,
    run: str | None,
    kernel: str | None,
    version: int | None,
    console: Console,
) -> Offer:
    """Raises `PodiumError` for a choice that names nothing, or a version that trains a run which is not here."""
    if kernel is None:
        chosen = _chosen_run(workspace, experiment, run, console)
        check_unlocked(chosen.path)
        _name_trial(chosen, console)
        _check_whole(chosen)
        if chosen.submission_file.is_file():
            check_run_file(chosen.path, chosen.record, chosen.submission_file.name)
        return Offer(chosen, chosen.submission_file)
    log = PushLog(workspace, kernel)
    push = log.find(version=version)
    if push is None:
        what = kernel if version is None else f"version {version} of {kernel}"
        raise PodiumError(f"kernel {what}: was not pushed from here; push it with: make push K={kernel}")
    name = run or push.run
    chosen = Run.find(workspace.runs, name) if name else _trained_there(workspace, log, push)
    console.print(f"{push.version.kernel}: version {push.version.version}, of run {chosen.id}", highlight=False)
    _name_trial(chosen, console)
    _check_whole(chosen)
    return Offer(chosen, log.folder(push.version.version) / FILE_NAME, push.version, push)


def _check_whole(run: Run) -> None:
    """What the ledger will say of the run must be what it was made with."""
    run.check_prediction_files()
    if run.lost:
        cure = f"put it back from a copy, or `make resume RUN={run.id}` makes it again"
        raise PodiumError(f"{run.lost}; {cure}")
    if run.diff_file.name in (run.record.files_sha256 or {}):
        check_run_file(run.path, run.record, run.diff_file.name)


def _trained_there(workspace: Workspace, log: PushLog, push: Push) -> Run:
    """The run that a training version left, once it was taken in."""
    origin = Origin(kernel=push.version.kernel, version=push.version.version)
    found = [run for run in Run.list(workspace.runs) if run.record.imported == origin]
    if not found:
        cure = f"pull it and take it in: podium runs import {log.folder(push.version.version)}"
        raise PodiumError(
            f"{push.version.kernel}: version {push.version.version} trains a run that is not here; {cure}"
        )
    return found[-1]


def described(offer: Offer, message: str | None) -> str:
    """The submission's description: the given one, or experiment, run and kernel, and that it is a smoke run."""
    run = offer.run
    trial = f" ({run.trial})" if run.trial else ""
    return message or f"{run.experiment} {run.id}{f' {offer.kernel}' if offer.kernel else ''}{trial}"


def check_run(offer: Offer) -> None:
    """PodiumError for a run that is not to be submitted: an overfit run, one unfinished, or one that lacks a fold.

    A kernel that predicts holds its weights itself, whatever has become of the run since.
    """
    run = offer.run
    if run.mode == OVERFIT:
        raise PodiumError(
            f"run {run.id}: is {warn_of_mode(run.mode)}, and it cannot be submitted; make a real run with: "
            f"make experiment EXP={run.experiment}"
        )
    if offer.kernel is None:
        check_finished(run)
    elif run.status is not RunStatus.FINISHED:
        cure = f"go on with it: make kernel K={offer.kernel.kernel.slug} RESUME=1, and push it again"
        raise PodiumError(f"run {run.id}: is {run.status}; {cure}")


def check_file(workspace: Workspace, offer: Offer, rules: Competition) -> None:
    """Hold the file against the sample submission, as Kaggle would."""
    if offer.kernel is not None and not offer.path.is_file():
        name = offer.kernel.kernel.slug
        raise PodiumError(f"{offer.path}: no such file; pull the output: podium pull {name}")
    sample = rules.load_sample(workspace.data_dir(rules.kaggle_slug))
    check_submission(load_submission(offer.path, sample), sample, rules, source=str(offer.path))


def _name_trial(run: Run, console: Console) -> None:
    if run.trial:
        console.print(f"run {run.id} is {warn_of_mode(run.mode)}", highlight=False, soft_wrap=True)


def _chosen_run(workspace: Workspace, experiment: str | None, run: str | None, console: Console) -> Run:
    if run:
        named = Run.find(workspace.runs, run)
        if experiment and named.experiment != experiment:
            cure = f"leave EXP out or write EXP={named.experiment}"
            raise PodiumError(f"run {named.id}: is of experiment {named.experiment}, not of {experiment}; {cure}")
        return named
    if not experiment:
        raise PodiumError("nothing to submit: name an experiment (EXP=...) or a run (RUN=...)")
    newest = Run.newest_finished(workspace.runs, experiment)
    console.print(f"{experiment}: its newest finished run is {newest.id}", highlight=False)
    return newest
