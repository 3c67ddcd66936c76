"""Experiment files, read and accepted."""

import argparse

from pipelines.commands import Commands, add_experiment
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`config` and `lock`."""
    config = add_experiment(commands.add("config", _config, "print an experiment whole, or every field"))
    config.add_argument("--schema", action="store_true", help="every field there is, with a sentence each")
    commands.add("lock", _lock, "accept that resolved experiments changed")


def _config(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.config.experiment_file import ask_which
    from pipelines.config.printing import print_experiment, print_schema

    if arguments.schema:
        print_schema()
    elif arguments.experiment:
        print_experiment(workspace, arguments.experiment, arguments.overrides)
    else:
        ask_which(workspace)


def _lock(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.config.printing import lock_experiments

    lock_experiments(workspace)
