"""What is sent to a leaderboard, and the record of it."""

import argparse

from pipelines.commands import Commands, add_run_choice
from pipelines.errors import PodiumError
from pipelines.names import run_name
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`submit` and `ledger`."""
    submit = add_run_choice(commands.add("submit", _submit, "submit a finished run to its leaderboard"))
    submit.add_argument("--kernel", help="a pushed kernel instead: its output, or for a code competition its version")
    submit.add_argument("--version", type=int, help="the kernel's version; default: the newest that was pushed")
    submit.add_argument("--record", type=float, metavar="SCORE", help="send nothing: write down this public score")
    submit.add_argument("--record-private", type=float, metavar="SCORE", help="with --record: the private score")
    submit.add_argument("--ref", type=int, help="with --record: the submission's number")
    submit.add_argument("--competition", help="refuse a run of any other competition")
    submit.add_argument("--host", help="local or kaggle; default: the competition's own")
    submit.add_argument("--message", help="the submission's description")
    submit.add_argument("--again", action="store_true", help="send once more what was submitted there already")
    submit.add_argument("--reveal", action="store_true", help="show the local host's private scores")
    ledger = commands.add("ledger", _ledger, "every submission on record, or one record whole")
    ledger.add_argument("ref", nargs="?")


def _submit(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.submissions.submit import record_score, submit

    choice = {
        "experiment": run_name(arguments.experiment) if arguments.experiment else None,
        "run": arguments.run,
        "kernel": arguments.kernel,
        "version": arguments.version,
        "message": arguments.message,
    }
    if arguments.record is None:
        where = {"competition": arguments.competition, "host": arguments.host}
        submit(workspace, **choice, **where, reveal=arguments.reveal, again=arguments.again)
    elif arguments.ref is None:
        raise PodiumError("--record: which submission? --ref is its number on Kaggle's page of your submissions")
    else:
        private = arguments.record_private
        record_score(workspace, **choice, ref=arguments.ref, public=arguments.record, private=private)


def _ledger(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.submissions.show import list_submissions, show_submission

    if arguments.ref:
        show_submission(workspace, arguments.ref)
    else:
        list_submissions(workspace)
