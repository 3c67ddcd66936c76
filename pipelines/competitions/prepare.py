"""`podium data prepare` and `podium data list`: the files of embedded competitions, and which data are there."""

import json
import time
from pathlib import Path

import numpy as np

from pipelines.competitions.competition import Competition, PreparationFolders
from pipelines.competitions.embedded import check_manifest, read_manifest, remove_staging
from pipelines.competitions.loading import competition_names, load_competition
from pipelines.errors import PodiumError
from pipelines.screen import say
from pipelines.workspace import Workspace


def prepare(workspace: Workspace, name: str, *, force: bool = False) -> None:
    """Write an embedded competition's files, and print their rows, digests and the seconds it took.

    What is there already and unchanged is left alone. Raises `PodiumError` for a competition that is not embedded,
    a missing data package, and a file that was changed by hand unless `force` renews it.
    """
    competition = load_competition(name)
    if competition.prepare is None:
        raise PodiumError(
            f"{name}: its data are on Kaggle, not in a package; get them with: "
            f"podium data download {competition.kaggle_slug}"
        )
    folders = PreparationFolders(
        workspace.data_dir(competition.kaggle_slug), workspace.local_host(competition.kaggle_slug)
    )
    for folder in (folders.data, folders.local_host):
        remove_staging(folder)
    if not force and _is_prepared(folders):
        say(f"{name}: already prepared in {folders.data}; --force makes it anew")
        return
    say(f"{name}: preparing ...")
    started = time.perf_counter()
    competition.prepare(folders)
    for folder in (folders.data, folders.local_host):
        _print_files(folder)
    say(f"{name}: prepared in {time.perf_counter() - started:.0f} s")


def prepare_missing(workspace: Workspace, competition: Competition) -> None:
    """Write the files of an embedded competition where they are missing; a Kaggle one's are downloaded on request."""
    if competition.prepare is not None:
        prepare(workspace, competition.name)


def list_competitions(workspace: Workspace, *, as_json: bool = False) -> None:
    """Print every competition with its host, metric, and whether its data are here or how to get them.

    `as_json` prints an object a line, with slug and title as well: what another checkout's `podium reproduce` asks.
    """
    for name in competition_names():
        competition = load_competition(name)
        state = _state(workspace, competition)
        if as_json:
            facts = {"name": name, "slug": competition.kaggle_slug, "title": competition.title}
            say(json.dumps({**facts, "host": competition.host, "metric": competition.metric, "state": state}))
        else:
            say(f"{name}  {competition.host}  {competition.metric}  {state}")


def _state(workspace: Workspace, competition: Competition) -> str:
    if (workspace.data_dir(competition.kaggle_slug) / "train.csv").is_file():
        return "ready"
    if competition.prepare is not None:
        return f"podium data prepare {competition.name}"
    return f"podium data download {competition.kaggle_slug}"


def _is_prepared(folders: PreparationFolders) -> bool:
    # Both folders are looked at before one is judged incomplete: a changed file must be named, not written over.
    complete = [check_manifest(folder) for folder in (folders.data, folders.local_host)]
    return all(complete)


def _print_files(folder: Path) -> None:
    for name, digest in read_manifest(folder).items():
        num_rows = _count_rows(folder / name)
        say(f"  {folder / name}  {num_rows:,} rows  sha256 {digest[:16]}")


def _count_rows(path: Path) -> int:
    if path.suffix == ".npy":
        return len(np.load(path, mmap_mode="r"))
    with path.open("rb") as stream:
        return sum(1 for _ in stream) - 1
