"""The run directories."""

import argparse
from pathlib import Path

from pipelines.commands import Commands, add_command
from pipelines.names import run_name
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`compare` and `runs`."""
    compare = commands.add("compare", _compare, "runs side by side: scores, leaderboard, cost, what differs",
        listed="runs side by side: scores, cost, what differs")
    compare.add_argument("experiment", nargs="?")
    compare.add_argument("--competition")
    compare.add_argument("--sort", help="score, lb, time, memory, started or a parameter's key")
    compare.add_argument("--limit", type=int, default=20)
    compare.add_argument("--json", action="store_true")
    runs = commands.add_group("runs", "list runs, free space, take in a kernel's")
    add_command(runs, "list", _list, "the runs and the space they take")
    add_command(runs, "prune", _prune, "remove what finished runs no longer need")
    taken = add_command(runs, "import", _import, "take in the run that a training kernel left, with its curves")
    taken.add_argument("folder", type=Path, help="the kernel's pulled output, or a run directory")


def _compare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.runs.compare import compare

    compare(
        workspace,
        competition=arguments.competition,
        experiment=run_name(arguments.experiment) if arguments.experiment else None,
        sort=arguments.sort,
        limit=arguments.limit,
        as_json=arguments.json,
    )


def _list(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.runs.keeping import list_all

    list_all(workspace)


def _prune(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.runs.keeping import prune

    prune(workspace)


def _import(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.runs.keeping import take_in

    take_in(workspace, arguments.folder)
