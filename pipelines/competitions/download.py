"""`podium data download`: a Kaggle competition's files into data/<slug>/, and what to do with them next."""

from pathlib import Path

from rich.console import Console

from pipelines.competitions.loading import competition_names, load_competition
from pipelines.kaggle.client import KaggleClient
from pipelines.screen import Column, format_bytes, print_table, say
from pipelines.workspace import Workspace

MAX_ROWS = 20


def download(workspace: Workspace, slug: str, *, console: Console | None = None) -> list[Path]:
    """Fetch and unpack all files of a competition; return their paths. Raises `PodiumError` as `KaggleClient` does."""
    folder = workspace.data_dir(slug)
    files = KaggleClient().download_competition(slug, folder)
    shown = files[:MAX_ROWS]
    sizes = [format_bytes(path.stat().st_size) for path in shown]
    print_table(
        console,
        [Column("file", [str(path.relative_to(folder)) for path in shown]), Column("size", sizes, is_number=True)],
    )
    if len(files) > len(shown):
        say(f"... {len(files)} files in all", console)
    say(f"{slug}: {len(files)} files in {folder}", console)
    if slug not in {load_competition(name).kaggle_slug for name in competition_names()}:
        say(f"next: podium new competition {slug}", console)
    return files
