"""What starts a file of your own."""

import argparse

from pipelines.commands import Commands, add_command
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`new`."""
    new = commands.add_group("new", "start a competition or an experiment of your own")
    competition = add_command(new, "competition", _new_competition, "read a competition's CSVs and write its file")
    competition.add_argument("slug")
    competition.add_argument("--id", help="the id column, where it cannot be told")
    competition.add_argument("--label", help="the label column")
    competition.add_argument("--task", help="binary, multiclass, multilabel, regression or text_to_text")
    competition.add_argument("--metric", help="a metric's name")
    competition.add_argument("--force", action="store_true", help="replace the files of an earlier call")
    experiment = add_command(new, "experiment", _new_experiment, "write an experiment file from a parent")
    experiment.add_argument("name")
    experiment.add_argument("--from", dest="parent", required=True, metavar="EXPERIMENT")


def _new_competition(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.scaffolding.new import new_competition

    new_competition(
        workspace,
        arguments.slug,
        id_column=arguments.id,
        label=arguments.label,
        task=arguments.task,
        metric=arguments.metric,
        force=arguments.force,
    )


def _new_experiment(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.scaffolding.new import new_experiment

    new_experiment(workspace, arguments.name, parent=arguments.parent)
