"""Competitions' files."""

import argparse

from pipelines.commands import Commands, add_command
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`data`."""
    data = commands.add_group("data", "write, list or download a competition's files")
    prepare = add_command(data, "prepare", _prepare, "write an embedded competition's files and its baselines")
    prepare.add_argument("competition")
    prepare.add_argument("--force", action="store_true", help="write them again")
    listing = add_command(data, "list", _list, "every competition, and whether its data are here")
    listing.add_argument("--json", action="store_true", help="one object a line, with slug and title")
    download = add_command(data, "download", _download, "get a Kaggle competition's files")
    download.add_argument("slug")


def _prepare(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.competitions.prepare import prepare

    prepare(workspace, arguments.competition, force=arguments.force)


def _list(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.competitions.prepare import list_competitions

    list_competitions(workspace, as_json=arguments.json)


def _download(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.competitions.download import download

    download(workspace, arguments.slug)
