"""`podium new experiment`: a file that starts as its parent and says what is still to be said."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.config.load import load_experiment
from pipelines.errors import PodiumError
from pipelines.scaffolding.new import new_experiment
from pipelines.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "experiments").mkdir()
    return Workspace(tmp_path)


def test_a_new_experiment_starts_as_its_parent(workspace):
    first = "name: first\ncompetition: trees\nmodel: {name: linear_baseline}\ndata: {name: table}\nseed: 7\n"
    (workspace.experiments / "first.yaml").write_text(first)
    path = new_experiment(workspace, "second_try", parent="first", console=Console(file=io.StringIO()))
    assert path.read_text().startswith("# Hypothesis: (what this changes, and why that should beat first)\n# Command:")
    experiment = load_experiment(workspace, "second_try", folds_of=lambda _: {"name": "kfold"})
    assert (experiment.parent, experiment.competition, experiment.seed) == ("first", "trees", 7)


@pytest.mark.parametrize(
    ("name", "parent", "message"),
    [
        ("Second", "first", "Second: not a name for an experiment; use snake_case"),
        ("../x", "first", "not a name for an experiment"),
        ("first", "first", r"experiments/first\.yaml has this name"),
        ("smoke_first", "first", r"experiments/smoke/first\.yaml has this name"),
        ("third", "frist", "no such experiment; did you mean first"),
        ("third", "second", "second: has a parent itself; start from first"),
    ],
)
def test_a_new_experiment_needs_a_free_name_and_a_parent_without_one(workspace, name, parent, message):
    (workspace.experiments / "smoke").mkdir()
    (workspace.experiments / "first.yaml").write_text("name: first\ncompetition: trees\n")
    (workspace.experiments / "second.yaml").write_text("name: second\nparent: first\n")
    (workspace.experiments / "smoke" / "first.yaml").write_text("name: first\ncompetition: trees\n")
    before = sorted(workspace.experiments.rglob("*"))
    with pytest.raises(PodiumError, match=message):
        new_experiment(workspace, name, parent=parent)
    assert sorted(workspace.experiments.rglob("*")) == before
