"""The command line: parsing, and one lazy import per command. `podium --help` must load neither torch nor MLflow."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipelines.cli_kernels import add_kernel_commands, add_rehearsal_commands
from pipelines.cli_search import add_search
from pipelines.config.workspace import Workspace
from pipelines.errors import PodiumError
from pipelines.subcommands import Subparsers
from pipelines.subcommands import add_command as _add
from pipelines.subcommands import add_group as _add_group
from pipelines.switches import is_on


def _train(arguments: argparse.Namespace, workspace: Workspace) -> None:
    if not arguments.experiment:
        _list_experiments(workspace)
    mode = _mode()
    if _is_main_process():
        _prepare_data(workspace, arguments.experiment, arguments.overrides)
    from pipelines.stages.train import train

    train(workspace, arguments.experiment, arguments.overrides, mode=mode)


def _prepare_data(workspace: Workspace, name: str, overrides: Sequence[str]) -> None:
    """Write the files of an embedded competition where they are missing; a Kaggle one's are downloaded on request."""
    from pipelines.competitions.competition import load_competition
    from pipelines.config.load import load_experiment

    competition = load_competition(load_experiment(workspace, name, overrides).competition)
    if competition.prepare is not None:
        from pipelines.stages.data import prepare

        prepare(workspace, competition.name)


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _mode() -> str | None:
    chosen = [name for name in ("smoke", "overfit") if is_on(name.upper(), os.environ)]
    if len(chosen) > 1:
        raise PodiumError("SMOKE and OVERFIT are both set; choose one")
    return chosen[0] if chosen else None


def _list_experiments(workspace: Workspace) -> None:
    from pipelines.config.experiment_file import experiment_names

    names = "\n".join(f"  {name}" for name in experiment_names(workspace))
    raise PodiumError(f"which experiment? EXP=… is one of\n{names}")


def _find_lr(arguments: argparse.Namespace, workspace: Workspace) -> None:
    if not arguments.experiment:
        _list_experiments(workspace)
    _prepare_data(workspace, arguments.experiment, arguments.overrides)
    from pipelines.stages.find_lr import sweep

    sweep(workspace, arguments.experiment, arguments.overrides)


def _resume(arguments: argparse.Namespace, workspace: Workspace) -> None:
    given = " ".join(word for word in (arguments.experiment, *arguments.overrides) if word and "=" in word)
    if given:
        cure = f'`make experiment EXP=... SET="{given}"` starts another run'
        raise PodiumError(f"resume takes no {given}: a run goes on as it was configured; {cure}")
    if arguments.overrides:
        raise PodiumError(f"resume takes one experiment; {' '.join(arguments.overrides)} is one too many")
    from pipelines.stages.train import resume

    resume(workspace, arguments.experiment, arguments.run)


def _predict(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.predict import predict

    predict(
        workspace,
        experiment=arguments.experiment,
        run=arguments.run,
        data_dir=arguments.data_dir,
        output=arguments.output,
    )


def _submit(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.submit import record_score, submit

    choice = {
        "experiment": _word(arguments.experiment),
        "run": arguments.run,
        "kernel": arguments.kernel,
        "version": arguments.version,
        "message": arguments.message,
    }
    if arguments.record is None:
        where = {"competition": arguments.competition, "host": arguments.host}
        submit(workspace, **choice, **where, reveal=arguments.reveal, again=arguments.again)
    elif arguments.ref is None:
        raise PodiumError("--record: which submission? --ref is its number on Kaggle's page of your submissions")
    else:
        private = arguments.record_private
        record_score(workspace, **choice, ref=arguments.ref, public=arguments.record, private=private)


def _ledger(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.ledger import list_submissions, show_submission

    if arguments.ref:
        show_submission(workspace, arguments.ref)
    else:
        list_submissions(workspace)


def _reproduce(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.reproduce import reproduce

    is_equal = reproduce(
        workspace,
        arguments.ref,
        weights=arguments.weights,
        data_dir=arguments.data_dir,
        into=arguments.into,
        retrain=arguments.retrain,
    )
    if not is_equal:
        sys.exit(1)


def _winner_package(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.winner_package import write_winner_package

    write_winner_package(workspace, arguments.ref, weights=arguments.weights, into=arguments.into)


def _compare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.compare import compare

    compare(
        workspace,
        competition=arguments.competition,
        experiment=_word(arguments.experiment),
        sort=arguments.sort,
        limit=arguments.limit,
        as_json=arguments.json,
    )


def _word(experiment: str | None) -> str | None:
    """smoke/mt5_adafactor is addressed as a file and named in one word."""
    return experiment.replace("/", "_") if experiment else None


def _config(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.config import print_experiment, print_schema

    if arguments.schema:
        print_schema()
    elif arguments.experiment:
        print_experiment(workspace, arguments.experiment, arguments.overrides)
    else:
        _list_experiments(workspace)


def _lock(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.config import lock_experiments

    lock_experiments(workspace)


def _data_prepare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.data import prepare

    prepare(workspace, arguments.competition, force=arguments.force)


def _data_list(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.data import list_competitions

    list_competitions(workspace)


def _data_download(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.download import download

    download(workspace, arguments.slug)


def _new_competition(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.new import new_competition

    new_competition(
        workspace,
        arguments.slug,
        id_column=arguments.id,
        label=arguments.label,
        task=arguments.task,
        metric=arguments.metric,
        force=arguments.force,
    )


def _new_experiment(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.new import new_experiment

    new_experiment(workspace, arguments.name, parent=arguments.parent)


def _runs_list(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.runs import list_all

    list_all(workspace)


def _runs_prune(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.runs import prune

    prune(workspace)


def _runs_import(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.runs import take_in

    take_in(workspace, arguments.folder)


def _kernel_build(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.config.kernel_file import load_kernel_file
    from pipelines.stages.kernel import build

    mode = _mode()
    file = load_kernel_file(workspace, arguments.kernel)
    if file.mode == "train":
        _prepare_data(workspace, str(file.experiment), file.overrides)
    build(workspace, arguments.kernel, run=arguments.run, resume=arguments.resume, mode=mode)


def _tracking_prepare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.tracking import prepare

    prepare(workspace)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="podium", description="From one experiment file to a leaderboard row that anyone can rebuild."
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout; default: the current folder")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = _add(commands, "train", _train, "train an experiment, from data to scored run")
    train.add_argument("experiment", nargs="?")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    resume = _add_choice(_add(commands, "resume", _resume, "go on with an unfinished run"))
    # Named so that they can be refused in words.
    resume.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)

    find_lr = _add(commands, "find-lr", _find_lr, "sweep the learning rate over an experiment's model and data")
    find_lr.add_argument("experiment", nargs="?")
    find_lr.add_argument("overrides", nargs="*", metavar="key=value")

    predict = _add_choice(_add(commands, "predict", _predict, "predict the test set with a finished run"))
    predict.add_argument("--data-dir", type=Path, help="another folder with test.csv and sample_submission.csv")
    predict.add_argument("--output", type=Path, help="where the submission goes; default: into the run directory")

    submit = _add_choice(_add(commands, "submit", _submit, "submit a finished run to its leaderboard"))
    submit.add_argument("--kernel", help="a pushed kernel instead: its output, or for a code competition its version")
    submit.add_argument("--version", type=int, help="the kernel's version; default: the newest that was pushed")
    submit.add_argument("--record", type=float, metavar="SCORE", help="send nothing: write down this public score")
    submit.add_argument("--record-private", type=float, metavar="SCORE", help="with --record: the private score")
    submit.add_argument("--ref", type=int, help="with --record: the submission's number")
    submit.add_argument("--competition", help="refuse a run of any other competition")
    submit.add_argument("--host", help="local or kaggle; default: the competition's own")
    submit.add_argument("--message", help="the submission's description")
    submit.add_argument("--again", action="store_true", help="send once more what was submitted there already")
    submit.add_argument("--reveal", action="store_true", help="show the local host's private scores")

    _add_record(commands)

    compare = _add(commands, "compare", _compare, "runs side by side: scores, leaderboard, cost, what differs")
    compare.add_argument("experiment", nargs="?")
    compare.add_argument("--competition")
    compare.add_argument("--sort", help="score, lb, time, memory, started or a parameter's key")
    compare.add_argument("--limit", type=int, default=20)
    compare.add_argument("--json", action="store_true")

    config = _add(commands, "config", _config, "print the resolved experiment, or --schema: every field there is")
    config.add_argument("experiment", nargs="?")
    config.add_argument("overrides", nargs="*", metavar="key=value")
    config.add_argument("--schema", action="store_true")
    _add(commands, "lock", _lock, "accept that resolved experiments changed")
    add_kernel_commands(partial(_add, commands))
    _add_data(commands)
    _add_new(commands)
    _add_kernel(commands)
    add_search(commands)

    runs = _add_group(commands, "runs", "list the runs, free space, or take in a kernel's")
    _add(runs, "list", _runs_list, "the runs and the space they take")
    _add(runs, "prune", _runs_prune, "remove what finished runs no longer need")
    taken = _add(runs, "import", _runs_import, "take in the run that a training kernel left, with its curves")
    taken.add_argument("folder", type=Path, help="the kernel's pulled output, or a run directory")
    tracking = _add_group(commands, "tracking", "the tracking database")
    _add(tracking, "prepare", _tracking_prepare, "create MLflow's database, once")
    return parser


def _add_record(commands: Subparsers) -> None:
    ledger = _add(commands, "ledger", _ledger, "every submission on record, or one record whole")
    ledger.add_argument("ref", nargs="?")
    reproduce = _add(commands, "reproduce", _reproduce, "make a submission again from its record; exit code 1: differs")
    package = _add(commands, "winner-package", _winner_package, "write the documentation that Kaggle asks of winners")
    for parser in (reproduce, package):
        parser.add_argument("ref", help="local:place_names:3, kaggle:1234, or a run's id")
        parser.add_argument("--weights", type=Path, nargs="+", default=[], help="where the weights are, beside runs/")
    package.add_argument("--into", type=Path, help="a new folder; default: one under build/winner-package/")
    reproduce.add_argument("--data-dir", type=Path, help="the competition's files; default: those of this checkout")
    reproduce.add_argument("--into", type=Path, help="a new folder, which is kept; default: a temporary one")
    reproduce.add_argument("--retrain", action="store_true", help="train again instead of using the recorded weights")


def _add_data(commands: Subparsers) -> None:
    data = _add_group(commands, "data", "a competition's files")
    prepare = _add(data, "prepare", _data_prepare, "write an embedded competition's files and its baselines")
    prepare.add_argument("competition")
    prepare.add_argument("--force", action="store_true", help="write them again")
    _add(data, "list", _data_list, "every competition, and whether its data are here")
    download = _add(data, "download", _data_download, "get a Kaggle competition's files")
    download.add_argument("slug")


def _add_new(commands: Subparsers) -> None:
    new = _add_group(commands, "new", "start a competition or an experiment of your own")
    competition = _add(new, "competition", _new_competition, "read a competition's CSVs and write its file")
    competition.add_argument("slug")
    competition.add_argument("--id", help="the id column, where it cannot be told")
    competition.add_argument("--label", help="the label column")
    competition.add_argument("--task", help="binary, multiclass, multilabel, regression or text_to_text")
    competition.add_argument("--metric", help="a metric's name")
    competition.add_argument("--force", action="store_true", help="replace the files of an earlier call")
    experiment = _add(new, "experiment", _new_experiment, "write an experiment file from a parent")
    experiment.add_argument("name")
    experiment.add_argument("--from", dest="parent", required=True, metavar="EXPERIMENT")


def _add_kernel(commands: Subparsers) -> None:
    kernel = _add_group(commands, "kernel", "a Kaggle notebook, generated from a run")
    build = _add(kernel, "build", _kernel_build, "write the notebook, its metadata and the datasets it reads")
    build.add_argument("kernel", help="a folder of kernels/")
    build.add_argument("--run", help="predict with this run instead of the one that kernel.yaml means")
    build.add_argument("--resume", action="store_true", help="go on from a training kernel's own former output")
    add_rehearsal_commands(partial(_add, kernel))


def _add_choice(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("experiment", nargs="?", help="its newest run that fits and is no smoke or overfit run")
    parser.add_argument("--run", help="a run's id or folder instead")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; what a user can cause ends in one line on stderr and exit code 2."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.command(arguments, Workspace(arguments.root.resolve()))
    except PodiumError as error:
        print(f"podium: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # `podium config … | head` has read enough; python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
