"""What trains and predicts."""

import argparse
from pathlib import Path
from typing import NoReturn

from pipelines.commands import Commands, add_experiment, add_run_choice
from pipelines.errors import PodiumError
from pipelines.interruption import way_on
from pipelines.modes import chosen_mode
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`train`, `resume`, `find-lr` and `predict`."""
    add_experiment(commands.add("train", _train, "train an experiment, from data to scored run"))
    resume = add_run_choice(commands.add("resume", _resume, "go on with an unfinished run"))
    # Named so that they can be refused in words.
    resume.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    add_experiment(
        commands.add(
            "find-lr",
            _find_lr,
            "sweep the learning rate over an experiment's model and data",
            listed="sweep an experiment's learning rate",
        )
    )
    predict = add_run_choice(commands.add("predict", _predict, "predict the test set with a finished run"))
    predict.add_argument("--data-dir", type=Path, help="another folder with test.csv and sample_submission.csv")
    predict.add_argument("--output", type=Path, help="where the submission goes; default: into the run directory")


def _train(arguments: argparse.Namespace, workspace: Workspace) -> None:
    mode = chosen_mode()
    if not arguments.experiment:
        _ask_which(workspace)
    with way_on(f"nothing was begun: make experiment EXP={arguments.experiment} starts it"):
        from pipelines.training.train import train

        train(workspace, arguments.experiment, arguments.overrides, mode=mode)


def _ask_which(workspace: Workspace) -> NoReturn:
    from pipelines.config.experiment_file import ask_which

    ask_which(workspace)


def _resume(arguments: argparse.Namespace, workspace: Workspace) -> None:
    given = " ".join(word for word in (arguments.experiment, *arguments.overrides) if word and "=" in word)
    if given:
        cure = f'`make experiment EXP=... SET="{given}"` starts another run'
        raise PodiumError(f"resume takes no {given}: a run goes on as it was configured; {cure}")
    if arguments.overrides:
        raise PodiumError(f"resume takes one experiment; {' '.join(arguments.overrides)} is one too many")
    from pipelines.training.train import resume

    resume(workspace, arguments.experiment, arguments.run)


def _find_lr(arguments: argparse.Namespace, workspace: Workspace) -> None:
    if not arguments.experiment:
        _ask_which(workspace)
    from pipelines.training.find_lr import sweep

    sweep(workspace, arguments.experiment, arguments.overrides)


def _predict(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.training.predict import predict

    predict(
        workspace,
        experiment=arguments.experiment,
        run=arguments.run,
        data_dir=arguments.data_dir,
        output=arguments.output,
    )
