"""Another commit's code, run beside this one's: a clone of the repository, and processes that import from it alone."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import names
from pipelines.competitions.loading import competition_names, load_competition
from pipelines.errors import PodiumError

# The packages are imported before the clone leaves the path again: with it there, its folder kernels/ would be taken
# for a package of that name which transformers looks for.
_PODIUM = """
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
import components, pipelines
sys.path.remove(root)
assert pipelines.__file__.startswith(root), pipelines.__file__
sys.argv[0] = "podium"
from pipelines.cli import main
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class CompetitionFacts:
    """What another commit's code says of a competition."""

    slug: str
    title: str


def check_out(repository: Path, commit: str, target: Path) -> None:
    """Clone `repository` into the new folder `target`, at `commit`.

    Raises PodiumError where there is no repository, no such commit in it, or something in the way.
    """
    try:
        names.commit(commit)
    except ValueError as error:
        raise PodiumError(f"commit: {error}") from None
    if not (repository / ".git").exists():
        raise PodiumError(
            f"{repository}: no git checkout; run this where the project was cloned, or name it with --root"
        )
    if _git(repository, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        cure = "`git fetch` the branch that has it, or run this in the clone that made the submission"
        raise PodiumError(f"commit {commit}: not in the repository at {repository}; {cure}")
    if target.exists() and any(target.iterdir()):
        raise PodiumError(f"{target}: not empty; name a new folder")
    for arguments in (
        ("clone", "--quiet", "--no-checkout", str(repository), str(target)),
        ("-C", str(target), "checkout", "--quiet", "--detach", commit),
    ):
        result = _git(repository, *arguments)
        if result.returncode != 0:
            raise PodiumError(f"{target}: git {arguments[0].strip('-')} failed: {_last_line(result.stderr)}")


def apply_patch(checkout: Path, patch: Path) -> None:
    """Put uncommitted changes onto a clone.

    Raises PodiumError where they do not fit, and where they make a symbolic link that leads out of the clone: git
    itself refuses to write outside or through a link, but what is written later would go through it.
    """
    before = _links(checkout)
    result = _git(checkout, "apply", "--whitespace=nowarn", str(patch.absolute()))
    if result.returncode != 0:
        raise PodiumError(f"{patch}: the uncommitted changes do not apply to the commit: {_last_line(result.stderr)}")
    for link, _ in sorted(_links(checkout) - before):
        if not names.is_within(checkout, link):
            raise PodiumError(
                f"{patch}: the uncommitted changes make a symbolic link that leads out of the checkout: "
                f"{link.relative_to(checkout)} -> {link.readlink()}; take it out of them"
            )


def inside(checkout: Path, path: Path) -> Path:
    """A path in a clone that is to be written; PodiumError where a symbolic link of the commit leads it out."""
    try:
        return names.within(checkout, path)
    except ValueError as error:
        raise PodiumError(f"the commit has a symbolic link where a file is to be written: {error}") from None


def _links(checkout: Path) -> set[tuple[Path, str]]:
    """Each symbolic link of a clone with where it leads, as it is written there."""
    found = set()
    for folder, folders, files in os.walk(checkout):
        if Path(folder) == checkout:
            folders[:] = [name for name in folders if name != ".git"]
        paths = [Path(folder, name) for name in (*folders, *files)]
        found |= {(path, str(path.readlink())) for path in paths if path.is_symlink()}
    return found


def ask_competition(checkout: Path, name: str) -> CompetitionFacts:
    """Slug and title of a competition by a clone's own command line, which alone is the same at every commit.

    A clone of before `data list --json` says how the data are had, and the slug stands in that: of an embedded
    competition which this checkout knows as well, it is taken from here. Raises PodiumError where the clone's code does
    not run here, or knows no such competition.
    """
    result = _podium(checkout, ["data", "list", "--json"])
    if result.returncode == 0:
        for line in result.stdout.splitlines():
            facts = json.loads(line)
            if facts["name"] == name:
                return CompetitionFacts(facts["slug"], facts["title"])
        raise _unknown(checkout, name)
    listing = run_podium(checkout, ["data", "list"])
    words = next((line.split() for line in listing.splitlines() if line.split()[:1] == [name]), None)
    if words is None:
        raise _unknown(checkout, name)
    if "download" in words:
        return CompetitionFacts(words[-1], words[-1])
    if name in competition_names():
        here = load_competition(name)
        return CompetitionFacts(here.kaggle_slug, here.title)
    printed = run_podium(checkout, ["data", "prepare", name])
    slug = next(Path(line.split()[0]).parent.name for line in printed.splitlines() if "train.csv" in line)
    return CompetitionFacts(slug, slug)


def _unknown(checkout: Path, name: str) -> PodiumError:
    return PodiumError(f"{checkout}: its code has no competition {name}; was it never committed?")


def run_podium(checkout: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command with a clone's code, within the clone; return what it printed.

    Raises PodiumError with the last thing it said when it failed.
    """
    result = _podium(checkout, arguments, environment)
    if result.returncode != 0:
        raise PodiumError(f"`podium {' '.join(arguments)}` failed in {checkout}: {_last_line(result.stderr)}")
    return result.stdout


def _podium(
    checkout: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # What the caller's shell asks of trainings or of imports is no part of the record.
    dropped = ("PYTHONPATH", "SMOKE", "OVERFIT", "MLFLOW_TRACKING_URI", "RANK", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    command = [sys.executable, "-P", "-c", _PODIUM, str(checkout), "--root", str(checkout), *arguments]
    return subprocess.run(command, cwd=checkout, env=kept | dict(environment or {}), capture_output=True, text=True)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise PodiumError(f"git cannot be run ({error.strerror}); install it") from None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("podium: ") if lines else "it said nothing"
