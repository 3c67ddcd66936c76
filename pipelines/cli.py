"""The command line: a table of rooms. Each declares its commands; `podium --help` loads nothing that computes."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from pipelines.commands import Commands
from pipelines.competitions import commands as competitions
from pipelines.config import commands as config
from pipelines.errors import PodiumError, explain
from pipelines.interruption import Interruption, interruptible
from pipelines.kernels import commands as kernels
from pipelines.reproduction import commands as reproduction
from pipelines.runs import commands as runs
from pipelines.scaffolding import commands as scaffolding
from pipelines.search import commands as search
from pipelines.submissions import commands as submissions
from pipelines.tracking import commands as tracking
from pipelines.training import commands as training
from pipelines.workspace import Workspace

HELP = """From one experiment file to a leaderboard row that anyone can rebuild.

{commands}
"podium COMMAND --help" tells its options; --root names a checkout elsewhere."""

ROOMS: Mapping[str, Callable[[Commands], None]] = {
    "competitions": competitions.add_commands,
    "scaffolding": scaffolding.add_commands,
    "configuration": config.add_commands,
    "training": training.add_commands,
    "runs": runs.add_commands,
    "kernels": kernels.add_commands,
    "submissions": submissions.add_commands,
    "reproduction": reproduction.add_commands,
    "search": search.add_commands,
    "tracking": tracking.add_commands,
}


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="podium",
        usage="podium [--root ROOT] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=Path(), help=argparse.SUPPRESS)
    commands = Commands(parser)
    for room, add_commands in ROOMS.items():
        add_commands(commands.enter(room))
    parser.description = HELP.format(commands=commands.describe())
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    What a user or the machine can cause ends in one line on stderr and exit code 2, a signal in one and 128 + its
    number; only a bug shows a traceback.
    """
    with interruptible(is_last=argv is None) as heard:
        try:
            arguments = build_parser().parse_args(argv)
            arguments.command(arguments, Workspace(arguments.root.resolve()))
        except BaseException as error:
            # What an import makes of an interruption may be an error of any kind. A verb may have told it by itself.
            is_told = isinstance(error, PodiumError) and isinstance(error.__context__, KeyboardInterrupt)
            if not is_told and (heard.number is not None or isinstance(error, KeyboardInterrupt)):
                _end_interrupted(error, heard.number or signal.SIGINT, argv)
            _end(error)


def _end(error: BaseException) -> None:
    if isinstance(error, BrokenPipeError):
        # `podium config … | head` has read enough; python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    words = str(error) if isinstance(error, PodiumError) else explain(error)
    if words is None:
        raise error
    _say_and_exit(words, 2)


def _end_interrupted(error: BaseException, number: int, argv: Sequence[str] | None) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        sys.exit(128 + number)  # of several processes the first one speaks
    words = shlex.join(["podium", *(sys.argv[1:] if argv is None else argv)])
    way_on = error.way_on if isinstance(error, Interruption) else ""
    _say_and_exit(f"interrupted; {way_on or f'start it again with: {words}'}", 128 + number)


def _say_and_exit(words: str, code: int) -> NoReturn:
    with suppress(OSError):  # a terminal that was closed
        sys.stderr.write(f"podium: {words}\n")
        sys.stderr.flush()
    sys.exit(code)
