"""Every experiment file loads, builds, and is locked; its top says what a reader wants to know."""

import json

import pytest
from project import ROOT

from pipelines.competitions.loading import load_competition
from pipelines.config.build import build_model, build_optimizer, build_schedule
from pipelines.config.experiment_file import experiment_names
from pipelines.config.load import load_experiment
from pipelines.config.lock import changed_experiments
from pipelines.runs.scoring import count_classes
from pipelines.workspace import Workspace

WORKSPACE = Workspace(ROOT)
NAMES = experiment_names(WORKSPACE)


def test_there_are_as_many_experiments_as_we_think():
    assert len(NAMES) == len(list((ROOT / "experiments").rglob("*.yaml"))) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_says_what_it_tries(name):
    text = (ROOT / f"experiments/{name}.yaml").read_text(encoding="utf-8")
    for word in ("Hypothesis", "Command", "Expect", "Parent"):
        assert any(line.startswith(f"# {word}") for line in text.splitlines()), f"{name}: no line '# {word}'"
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 45


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_builds(name):
    experiment = load_experiment(WORKSPACE, name)
    competition = load_competition(experiment.competition)
    assert competition.name == experiment.competition
    if experiment.model.name not in ("t5_from_scratch", "xcit", "sentence_bert") or getattr(
        experiment.model, "checkpoint", None
    ):
        return
    is_seq2seq = getattr(experiment.model, "head", None) == "seq2seq"
    num_classes = None if is_seq2seq else count_classes(competition)
    model = build_model(experiment, vocab_size=100, num_classes=num_classes, task=competition.task)
    optimizer = build_optimizer(experiment, model)
    assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )
    schedule = build_schedule(experiment, num_steps=experiment.loop.num_steps)
    assert 0 < schedule(0) <= 1


def test_no_experiment_changed_in_silence():
    changes = changed_experiments(WORKSPACE)
    assert not changes, f"{changes}; if that is meant: make lock"
    locked = json.loads((ROOT / "experiments/resolved.lock").read_text())
    assert len(locked) == len(NAMES)
