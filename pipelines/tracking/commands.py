"""The tracking database."""

import argparse

from pipelines.commands import Commands, add_command
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`tracking`."""
    tracking = commands.add_group("tracking", "prepare the tracking database, send what is left")
    add_command(tracking, "prepare", _prepare, "create MLflow's database, once")
    add_command(tracking, "send", _send, "send what earlier commands could not, and end the runs of killed processes")


def _prepare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.tracking.prepare import prepare

    prepare(workspace)


def _send(_: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.tracking.send import send

    send(workspace)
