"""How a command of the command line is declared."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

from pipelines.config.workspace import Workspace

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command = Callable[[argparse.Namespace, Workspace], None]


def add_command(commands: Subparsers, name: str, command: Command, help_text: str) -> argparse.ArgumentParser:
    """A command; `help_text` begins with a small letter, as argparse's own do."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(command=command)
    return parser


def add_group(commands: Subparsers, name: str, help_text: str) -> Subparsers:
    """A word that other commands follow."""
    group = commands.add_parser(name, help=help_text, description=help_text)
    return group.add_subparsers(metavar="COMMAND", required=True)
