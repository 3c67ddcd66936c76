"""`podium tracking send`: what earlier commands could not tell MLflow, whatever store it belongs to."""

from pipelines.errors import PodiumError
from pipelines.screen import say
from pipelines.tracking.opening import send_left
from pipelines.workspace import Workspace


def send(workspace: Workspace) -> None:
    """Send it and say a line for each run. Raises PodiumError where something still waits."""
    lines: list[str] = []

    def say_line(text: str) -> None:
        lines.append(text)
        say(text)

    waiting = send_left(workspace, say_line)
    if waiting:
        raise PodiumError(f"{len(waiting)} runs wait for their store; `podium tracking send` tries them again")
    if not lines:
        say("nothing is left to send")
