"""`podium config` and `podium lock`: what an experiment file comes to, what may stand in one, and what has changed."""

from collections.abc import Sequence

from pipelines.config.describe import annotate, describe_schema
from pipelines.config.load import load_experiment
from pipelines.config.lock import write_lock
from pipelines.screen import say
from pipelines.workspace import Workspace


def print_experiment(workspace: Workspace, name: str, overrides: Sequence[str] = ()) -> None:
    """Print the resolved file, each value with where it comes from; the output is a valid experiment's YAML."""
    say(annotate(load_experiment(workspace, name, overrides)))


def print_schema() -> None:
    """Print every key that an experiment file may hold."""
    say(describe_schema())


def lock_experiments(workspace: Workspace) -> None:
    """Accept every experiment as it resolves now, and print which ones that changes."""
    changes = write_lock(workspace)
    say(f"{workspace.experiments.name}/{workspace.resolved_lock.name}: {changes}")
