"""How a room declares its commands: their words, what runs them, and the line that `podium --help` has for each.

A room's `commands.py` imports this and the workspace only, and the verb of a command when it is called: `podium --help`
loads nothing that computes.
"""

import argparse
from collections.abc import Callable
from typing import TypeAlias

from pipelines.workspace import Workspace

Parser = argparse.ArgumentParser
Group: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Command = Callable[[argparse.Namespace, Workspace], None]


class Commands:
    """The words after `podium`, which rooms enter one after another to declare theirs."""

    def __init__(self, parser: Parser) -> None:
        # Without `prog` the usage of a command would begin with the whole usage of podium.
        self._group: Group = parser.add_subparsers(
            prog=parser.prog, metavar="COMMAND", required=True, help=argparse.SUPPRESS
        )
        self._room = ""
        self._lines: list[tuple[str, str, str]] = []

    def enter(self, room: str) -> "Commands":
        """What is declared next belongs to this room."""
        self._room = room
        return self

    def add(self, name: str, command: Command, sentence: str, *, listed: str = "") -> Parser:
        """A command; `sentence` begins with a small letter, as argparse's own do.

        The list of all commands has `listed` in its place; commands for which it is the same share a line there.
        """
        self._lines.append((self._room, name, listed or sentence))
        parser: Parser = self._group.add_parser(name, description=sentence)
        parser.set_defaults(command=command)
        return parser

    def add_group(self, name: str, sentence: str) -> Group:
        """A word that other words follow; see `add_command`."""
        self._lines.append((self._room, name, sentence))
        return self._group.add_parser(name, description=sentence).add_subparsers(metavar="COMMAND", required=True)

    def describe(self) -> str:
        """One line a command, the first of a room with the room's name."""
        rows: list[tuple[str, list[str], str]] = []
        for room, name, sentence in self._lines:
            if rows and rows[-1][0] == room and rows[-1][2] == sentence:
                rows[-1][1].append(name)
            else:
                rows.append((room, [name], sentence))
        names = [", ".join(words) for _, words, _ in rows]
        heads = [room if index == 0 or rows[index - 1][0] != room else "" for index, (room, _, _) in enumerate(rows)]
        widths = max(map(len, heads)) + 2, max(map(len, names)) + 2
        lines = zip(heads, names, (sentence for _, _, sentence in rows), strict=True)
        return "\n".join(f"{head:{widths[0]}}{name:{widths[1]}}{sentence}" for head, name, sentence in lines)


def add_command(group: Group, name: str, command: Command, sentence: str) -> Parser:
    """A command of a group, listed by the group's own help."""
    parser: Parser = group.add_parser(name, help=sentence, description=sentence)
    parser.set_defaults(command=command)
    return parser


def add_run_choice(parser: Parser) -> Parser:
    """The words that choose a run: an experiment's newest, or one by its id."""
    parser.add_argument("experiment", nargs="?", help="its newest run that fits and is no smoke or overfit run")
    parser.add_argument("--run", help="a run's id or folder instead")
    return parser


def add_experiment(parser: Parser) -> Parser:
    """The words that configure one: its name, and fields that are said otherwise than in its file."""
    parser.add_argument("experiment", nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser
