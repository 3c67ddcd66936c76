"""What makes a submission again."""

import argparse
import sys
from pathlib import Path

from pipelines.commands import Commands
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`reproduce` and `winner-package`."""
    sentence = "make a submission again from its record; exit code 1: differs"
    reproduce = commands.add("reproduce", _reproduce, sentence, listed="make a submission again from its record")
    sentence = "write the documentation that Kaggle asks of winners"
    package = commands.add("winner-package", _winner_package, sentence, listed="write what Kaggle asks of winners")
    for parser in (reproduce, package):
        parser.add_argument("ref", help="local:place_names:3, kaggle:1234, or a run's id")
        parser.add_argument("--weights", type=Path, nargs="+", default=[], help="where the weights are, beside runs/")
    package.add_argument("--into", type=Path, help="a new folder; default: one under build/winner-package/")
    reproduce.add_argument("--data-dir", type=Path, help="the competition's files; default: those of this checkout")
    reproduce.add_argument("--into", type=Path, help="a new folder, which is kept; default: a temporary one")
    reproduce.add_argument("--retrain", action="store_true", help="train again instead of using the recorded weights")


def _reproduce(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.reproduction.reproduce import reproduce

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
    from pipelines.reproduction.winner.package import write_winner_package

    write_winner_package(workspace, arguments.ref, weights=arguments.weights, into=arguments.into)
