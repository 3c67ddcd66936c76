"""The tracking database."""

import argparse

from pipelines.commands import Commands, add_command
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`tracking`."""
    tracking = commands.add_group("tracking", "prepare the tracking database")
    add_command(tracking, "prepare", _prepare, "create MLflow's database, once")


def _prepare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.tracking.prepare import prepare

    prepare(workspace)
