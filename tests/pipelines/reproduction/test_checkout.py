"""What a clone at another commit is asked: by its command line alone, whichever version of it that is."""

import re

import pytest

from pipelines.competitions.loading import load_competition
from pipelines.errors import PodiumError
from pipelines.reproduction.checkout import CompetitionFacts, ask_competition
from pipelines.runs.source.state import hash_source

# Clones of before `data list --json`, and one of after.
FORMER = """
import sys

def main(words):
    words = words[2:]
    if words == ["data", "list"]:
        print("titanic  kaggle  accuracy  podium data download titanic-slug")
        print("place_names  local  exact_match  podium data prepare place_names")
        print("names_of_old  local  exact_match  podium data prepare names_of_old")
    elif words == ["data", "prepare", "names_of_old"]:
        print("names_of_old: preparing ...")
        print(f"  {sys.path[0]}/data/names-of-old/train.csv  120 rows  sha256 0123456789abcdef")
    else:
        sys.exit(2)
"""
LATTER = """
def main(words):
    assert words[2:] == ["data", "list", "--json"]
    print('{"name": "titanic", "slug": "titanic-slug", "title": "Titanic", "host": "kaggle"}')
"""


def clone(tmp_path, command_line):
    for package in ("components", "pipelines"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "pipelines" / "cli.py").write_text(command_line)
    return tmp_path


def test_a_clone_says_slug_and_title(tmp_path):
    place = clone(tmp_path, LATTER)
    assert ask_competition(place, "titanic") == CompetitionFacts("titanic-slug", "Titanic")
    with pytest.raises(PodiumError, match=f"{re.escape(str(place))}: its code has no competition other"):
        ask_competition(place, "other")


def test_a_clone_of_a_former_version_says_them_by_how_the_data_are_had(tmp_path):
    place = clone(tmp_path, FORMER)
    assert ask_competition(place, "titanic") == CompetitionFacts("titanic-slug", "titanic-slug")
    here = load_competition("place_names")
    assert ask_competition(place, "place_names") == CompetitionFacts(here.kaggle_slug, here.title)
    assert ask_competition(place, "names_of_old") == CompetitionFacts("names-of-old", "names-of-old")
    with pytest.raises(PodiumError, match="its code has no competition other"):
        ask_competition(place, "other")


def test_a_clone_whose_code_does_not_run_here(tmp_path):
    with pytest.raises(PodiumError, match=r"`podium data list` failed in .*: ModuleNotFoundError: No module named"):
        ask_competition(clone(tmp_path, "import a_library_of_then\n"), "titanic")


def test_the_source_of_a_clone_has_the_digest_that_its_own_code_would_give(tmp_path):
    place = clone(tmp_path, LATTER)
    before = hash_source(place)
    assert before != hash_source()
    (place / "pipelines" / "__pycache__").mkdir()
    (place / "tests.py").touch()
    assert hash_source(place) == before
    (place / "pipelines" / "new.py").touch()
    assert hash_source(place) != before
