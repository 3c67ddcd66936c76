"""The command line's part about kernels on Kaggle: parsing, and one lazy import per command."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pipelines.config.workspace import Workspace

Command = Callable[[argparse.Namespace, Workspace], None]
Add = Callable[[str, Command, str], argparse.ArgumentParser]


def add_kernel_commands(add: Add) -> None:
    """Add what acts on a built kernel; `add` makes a command of a name, a function and a sentence."""
    push = add("push", _push, "push a built kernel and its datasets to Kaggle; the same content is pushed once")
    push.add_argument("kernel", help="the kernel's slug, as under kernels/")
    push.add_argument("--wait", action="store_true", help="show its log until it ends, and pull its output")
    push.add_argument("--again", action="store_true", help="push it although Kaggle has this very content")
    push.add_argument("--patience", type=float, metavar="SECONDS", help="how long to wait; default: 14 hours")
    for name, command, sentence in (
        ("status", _status, "ask Kaggle how a pushed kernel fares"),
        ("pull", _pull, "fetch the output and the log of a pushed kernel"),
    ):
        parser = add(name, command, sentence)
        parser.add_argument("kernel", help="the kernel's slug, as under kernels/")
        parser.add_argument("--version", type=int, help="a version's number; default: the newest that was pushed")


def add_rehearsal_commands(add: Add) -> None:
    """Add what tries a built kernel before it is pushed."""
    check = add("check", _check, "hold a built kernel against Kaggle's rules, each failure with its cure")
    check.add_argument("kernel", help="the kernel's slug, as under kernels/")
    check.add_argument("--offline", action="store_true", help="do not ask Kaggle, even with credentials")
    rehearse = add("rehearse", _rehearse, "run a built kernel offline, as Kaggle will")
    rehearse.add_argument("kernel", help="the kernel's slug, as under kernels/")
    rehearse.add_argument("--image", choices=("here", "kaggle"), default="here", help="whose library versions")
    rehearse.add_argument(
        "--attach", action="append", default=[], type=_attachment, metavar="MOUNT=FOLDER",
        help="a source that is not built here, as datasets/owner/slug=FOLDER",
    )  # fmt: skip


def _check(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.check import check

    check(workspace, arguments.kernel, is_offline=arguments.offline)


def _rehearse(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.rehearse import rehearse

    rehearse(workspace, arguments.kernel, image=arguments.image, attach=dict(arguments.attach))


def _attachment(text: str) -> tuple[str, Path]:
    mount, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: write MOUNT=FOLDER with a folder that is there")
    return mount, Path(folder)


def _push(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.push import PATIENCE_SECONDS, push

    patience = PATIENCE_SECONDS if arguments.patience is None else arguments.patience
    push(workspace, arguments.kernel, wait=arguments.wait, again=arguments.again, patience_seconds=patience)


def _status(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.push import status

    status(workspace, arguments.kernel, version=arguments.version)


def _pull(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.stages.push import pull

    pull(workspace, arguments.kernel, version=arguments.version)
