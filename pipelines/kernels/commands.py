"""Kaggle notebooks: built from a run, tried here, pushed and watched."""

import argparse
from pathlib import Path

from pipelines.commands import Commands, Parser, add_command
from pipelines.modes import chosen_mode
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`kernel`, `push`, `status` and `pull`."""
    kernel = commands.add_group("kernel", "build, check or rehearse a Kaggle notebook")
    build = add_command(kernel, "build", _build, "write the notebook, its metadata and the datasets it reads")
    _of_kernel(build)
    build.add_argument("--run", help="predict with this run instead of the one that kernel.yaml means")
    build.add_argument("--resume", action="store_true", help="go on from a training kernel's own former output")
    check = _of_kernel(
        add_command(kernel, "check", _check, "hold a built kernel against Kaggle's rules, each failure with its cure")
    )
    check.add_argument("--offline", action="store_true", help="do not ask Kaggle, even with credentials")
    rehearse = _of_kernel(add_command(kernel, "rehearse", _rehearse, "run a built kernel offline, as Kaggle will"))
    rehearse.add_argument("--image", choices=("here", "kaggle"), default="here", help="whose library versions")
    rehearse.add_argument(
        "--attach", action="append", default=[], type=_attachment, metavar="MOUNT=FOLDER",
        help="a source that is not built here, as datasets/owner/slug=FOLDER",
    )  # fmt: skip
    sentence = "push a built kernel and its datasets to Kaggle; the same content is pushed once"
    push = _of_kernel(commands.add("push", _push, sentence, listed="push a built kernel and its datasets, once"))
    push.add_argument("--wait", action="store_true", help="show its log until it ends, and pull its output")
    push.add_argument("--again", action="store_true", help="push it although Kaggle has this very content")
    push.add_argument("--patience", type=float, metavar="SECONDS", help="how long to wait; default: 14 hours")
    listed = "ask how a pushed kernel fares; fetch its output"
    for name, command, sentence in (
        ("status", _status, "ask Kaggle how a pushed kernel fares"),
        ("pull", _pull, "fetch the output and the log of a pushed kernel"),
    ):
        parser = _of_kernel(commands.add(name, command, sentence, listed=listed))
        parser.add_argument("--version", type=int, help="a version's number; default: the newest that was pushed")


def _of_kernel(parser: Parser) -> Parser:
    parser.add_argument("kernel", help="the kernel's slug, as under kernels/")
    return parser


def _build(arguments: argparse.Namespace, workspace: Workspace) -> None:
    mode = chosen_mode()
    from pipelines.kernels.build import build

    build(workspace, arguments.kernel, run=arguments.run, resume=arguments.resume, mode=mode)


def _check(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.kernels.checking.check import check

    check(workspace, arguments.kernel, is_offline=arguments.offline)


def _rehearse(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.kernels.rehearsal.rehearse import rehearse
    from pipelines.kernels.rehearsal.report import Image

    rehearse(workspace, arguments.kernel, image=Image(arguments.image), attach=dict(arguments.attach))


def _attachment(text: str) -> tuple[str, Path]:
    mount, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: write MOUNT=FOLDER with a folder that is there")
    return mount, Path(folder)


def _push(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.kernels.pushing.push import PATIENCE_SECONDS, push

    patience = PATIENCE_SECONDS if arguments.patience is None else arguments.patience
    push(workspace, arguments.kernel, wait=arguments.wait, again=arguments.again, patience_seconds=patience)


def _status(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.kernels.pushing.push import status

    status(workspace, arguments.kernel, version=arguments.version)


def _pull(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.kernels.pushing.push import pull

    pull(workspace, arguments.kernel, version=arguments.version)
