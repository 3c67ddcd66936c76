"""`podium search app` and `podium search serve`: the page, and the encoder as a service of its own."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import PodiumError
from pipelines.screen import say
from pipelines.workspace import Workspace

APP = Path(__file__).parent / "page" / "app.py"
# What the page needs nothing of: reports to Streamlit's makers, a watcher of every source file, its developer's menu.
OPTIONS = {
    "browser.gatherUsageStats": "false",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "server.maxUploadSize": "1",
    "theme.base": "light",
    "theme.primaryColor": "#a63d2a",
    "theme.backgroundColor": "#faf8f3",
    "theme.secondaryBackgroundColor": "#f1ede4",
    "theme.textColor": "#1f1d1a",
    "theme.borderColor": "#e0d9cb",
}


def app_command(*, address: str, port: int) -> list[str]:
    """The command that runs the page."""
    options = OPTIONS | {"server.address": address, "server.port": str(port)}
    return [sys.executable, "-m", "streamlit", "run", str(APP), *(f"--{key}={value}" for key, value in options.items())]


def app_environment(workspace: Workspace, encoder_urls: Sequence[str]) -> dict[str, str]:
    """What the page reads from its environment."""
    # Two numeric libraries with a thread per core each would fight over two cores.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = {"PODIUM_SEARCH_ROOT": str(workspace.root), "PODIUM_ENCODER_URLS": " ".join(encoder_urls)}
    return threads | dict(os.environ) | told


def run_app(workspace: Workspace, *, address: str, port: int, encoder_urls: Sequence[str]) -> None:
    """Become the page's server. Raises `PodiumError` where no index is there to serve."""
    if not any((workspace.data / "search").glob("*/index.json")):
        raise PodiumError(f"{workspace.data / 'search'}: no index to serve; make one: podium search index chinese_news")
    say(f"search on http://{address}:{port}")
    command = app_command(address=address, port=port)
    os.execve(command[0], command, app_environment(workspace, encoder_urls))


def serve_encoder(workspace: Workspace, name: str, *, address: str, port: int, num_threads: int) -> None:
    """Serve one encoder until interrupted."""
    import uvicorn

    from pipelines.search.encoders import open_sentence_encoder
    from pipelines.search.service import build_service

    encoder = open_sentence_encoder(workspace, name, num_threads=num_threads)
    say(f"encoder {encoder.name} on http://{address}:{port}")
    uvicorn.run(build_service(encoder), host=address, port=port, log_level="warning")
