"""What is submitted: a run's file, or what a pushed version of a kernel left or is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.competitions.competition import Competition
from pipelines.competitions.submission_file import FILE_NAME, check_submission, load_submission
from pipelines.errors import PodiumError
from pipelines.kaggle.submissions import KernelOffer
from pipelines.kernels.pushes import Push, PushLog
from pipelines.modes import OVERFIT, warn_of_mode
from pipelines.runs.digests import FILES, check_run_file
from pipelines.runs.directory import RunDirectory
from pipelines.runs.folds import check_finished
from pipelines.runs.index import RunRecord, find_run, list_runs, newest_finished_run
from pipelines.runs.lock import check_unlocked
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Offer:
    """What is submitted: a run's file, or with `kernel` the output of that version, as it was pulled."""

    record: RunRecord
    path: Path
    kernel: KernelOffer | None = None
    push: Mapping[str, Any] | None = None

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
        record = _chosen_run(workspace, experiment, run, console)
        check_unlocked(record.folder)
        _name_trial(record, console)
        _check_whole(record)
        if record.submission.is_file():
            check_run_file(record.folder, record.manifest, record.submission.name)
        return Offer(record, record.submission)
    log = PushLog(workspace, kernel)
    push = log.find(version=version)
    if push is None:
        what = kernel if version is None else f"version {version} of {kernel}"
        raise PodiumError(f"kernel {what}: was not pushed from here; push it with: make push K={kernel}")
    record = (
        find_run(workspace.runs, run or push["run"]) if run or push["run"] else _trained_there(workspace, log, push)
    )
    console.print(f"{push['kernel']}: version {push['version']}, of run {record.run}", highlight=False)
    _name_trial(record, console)
    _check_whole(record)
    path = log.folder(push["version"]) / FILE_NAME
    return Offer(record, path, KernelOffer(push["kernel"], push["version"]), push)


def _check_whole(record: RunRecord) -> None:
    """What the ledger will say of the run must be what it was made with."""
    run = RunDirectory(record.folder)
    run.check_prediction_files()
    if record.lost:
        cure = f"put it back from a copy, or `make resume RUN={record.run}` makes it again"
        raise PodiumError(f"{record.lost}; {cure}")
    if run.diff.name in (record.manifest.get(FILES) or {}):
        check_run_file(record.folder, record.manifest, run.diff.name)


def _trained_there(workspace: Workspace, log: PushLog, push: Push) -> RunRecord:
    """The run that a training version left, once it was taken in."""
    origin = {"kernel": push["kernel"], "version": push["version"]}
    found = [record for record in list_runs(workspace.runs) if record.manifest.get("imported") == origin]
    if not found:
        cure = f"pull it and take it in: podium runs import {log.folder(push['version'])}"
        raise PodiumError(f"{push['kernel']}: version {push['version']} trains a run that is not here; {cure}")
    return found[-1]


def described(offer: Offer, message: str | None) -> str:
    """The submission's description: the given one, or experiment, run and kernel, and that it is a smoke run."""
    record = offer.record
    trial = f" ({record.trial})" if record.trial else ""
    return message or f"{record.experiment} {record.run}{f' {offer.kernel}' if offer.kernel else ''}{trial}"


def check_run(offer: Offer) -> None:
    """PodiumError for a run that is not to be submitted: an overfit run, one unfinished, or one that lacks a fold.

    A kernel that predicts holds its weights itself, whatever has become of the run since.
    """
    record = offer.record
    if record.mode == OVERFIT:
        raise PodiumError(
            f"run {record.run}: is {warn_of_mode(record.mode)}, and it cannot be submitted; make a real run with: "
            f"make experiment EXP={record.experiment}"
        )
    if offer.kernel is None:
        check_finished(record)
    elif record.status != "finished":
        cure = f"go on with it: make kernel K={offer.kernel.kernel.split('/')[-1]} RESUME=1, and push it again"
        raise PodiumError(f"run {record.run}: is {record.status}; {cure}")


def check_file(workspace: Workspace, offer: Offer, rules: Competition) -> None:
    """Hold the file against the sample submission, as Kaggle would."""
    if offer.kernel is not None and not offer.path.is_file():
        name = offer.kernel.kernel.split("/")[-1]
        raise PodiumError(f"{offer.path}: no such file; pull the output: podium pull {name}")
    sample = rules.load_sample(workspace.data_dir(rules.kaggle_slug))
    check_submission(load_submission(offer.path, sample), sample, rules, source=str(offer.path))


def _name_trial(record: RunRecord, console: Console) -> None:
    if record.trial:
        console.print(f"run {record.run} is {warn_of_mode(record.mode)}", highlight=False, soft_wrap=True)


def _chosen_run(workspace: Workspace, experiment: str | None, run: str | None, console: Console) -> RunRecord:
    if run:
        record = find_run(workspace.runs, run)
        if experiment and record.experiment != experiment:
            cure = f"leave EXP out or write EXP={record.experiment}"
            raise PodiumError(f"run {record.run}: is of experiment {record.experiment}, not of {experiment}; {cure}")
        return record
    if not experiment:
        raise PodiumError("nothing to submit: name an experiment (EXP=...) or a run (RUN=...)")
    record = newest_finished_run(workspace.runs, experiment)
    console.print(f"{experiment}: its newest finished run is {record.run}", highlight=False)
    return record
