"""The import contracts hold, and each catches the import it is there for."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

LINTER = Path(sys.executable).with_name("lint-imports")


def lint(folder):
    return subprocess.run(
        [LINTER, "--config", "setup.cfg", "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path):
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


def test_the_house_as_it_stands_keeps_its_contracts(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout


FLOORS = "Floors of pipelines"
COMPONENTS = "Floors of components"
KERNEL = "What runs inside a kernel"
PLANTED = [
    ("pipelines/training/prediction.py", "import pipelines.kernels.session", FLOORS),
    ("pipelines/runs/run.py", "import pipelines.learners.learner", FLOORS),
    ("pipelines/scaffolding/new.py", "import pipelines.reproduction.reproduce", FLOORS),
    ("pipelines/names.py", "def late():\n    import pipelines.workspace", FLOORS),
    ("components/models/t5/model.py", "import components.search.index", COMPONENTS),
    ("components/training/ema.py", "def late():\n    import components.models.shared.inference", COMPONENTS),
    ("components/memory/budget.py", "import components.training.lr_finder", COMPONENTS),
    ("components/data/batching.py", "import components.models.t5.layers", COMPONENTS),
    ("components/optim/schedules.py", "import components.metrics.table", COMPONENTS),
    ("components/metrics/table.py", "import mlflow", "Components know tensors"),
    ("components/data/text/dataset.py", "def late():\n    import omegaconf", "Components know tensors"),
    ("components/seeding.py", "import pipelines.cli", "Components know tensors"),
    ("pipelines/training/prediction.py", "import mlflow", KERNEL),
    ("pipelines/competitions/competition.py", "def late():\n    import kaggle", KERNEL),
    ("pipelines/kernels/session.py", "import pipelines.tracking.opening", KERNEL),
    ("pipelines/runs/scoring.py", "import pipelines.competitions.local_host", KERNEL),
    ("pipelines/learners/t5.py", "def late():\n    import pipelines.runs.importing", KERNEL),
    ("pipelines/runs/observer.py", "import omegaconf", "Only pipelines.config"),
    ("pipelines/training/train.py", "import mlflow", "Only pipelines.tracking.mlflow"),
    ("pipelines/kernels/pushing/push.py", "def late():\n    import kagglesdk", "Only pipelines.kaggle"),
    ("pipelines/training/predict.py", "import pipelines.training.train", "Verbs know nothing of each other"),
    ("pipelines/competitions/answers.py", "import pipelines.competitions.competition", "No circle anywhere"),
    (
        "pipelines/kernels/checking/rules.py",
        "def late():\n    import pipelines.kernels.pushing.push",
        "No circle anywhere",
    ),
]


@pytest.mark.parametrize(("module", "line", "contract"), PLANTED)
def test_a_planted_import_is_found(copy, module, line, contract):
    path = copy / module
    path.write_text(path.read_text() + f"\n{line}\n")
    result = lint(copy)
    assert result.returncode != 0
    assert f"{contract}" in result.stdout
    broken = next(row for row in result.stdout.splitlines() if row.startswith(contract))
    assert "BROKEN" in broken


@pytest.mark.parametrize("folder", ["components/extra", "pipelines/extra"])
def test_a_room_without_a_floor_is_found(copy, folder):
    (copy / folder).mkdir()
    (copy / folder / "__init__.py").touch()
    result = lint(copy)
    assert result.returncode != 0
    assert f"{folder.replace('/', '.')}" in result.stdout + result.stderr


def test_each_contract_is_planted():
    contracts = [section["name"] for name, section in read_contracts().items()]
    assert [name for name in contracts if not any(name.startswith(planted) for *_, planted in PLANTED)] == []
    assert all("ignore_imports" not in section for section in read_contracts().values())


# What stands in the rooms of a kernel's modules without running inside one: commands, verbs and what these alone use.
NOT_IN_A_KERNEL = {
    "training": {"commands", "find_lr", "predict", "train"},
    "learners": set(),
    "runs": {"commands", "compare", "foreign", "importing", "keeping"},
    "config": {"commands", "describe", "lock", "printing"},
    "competitions": {"commands", "download", "local_host", "prepare"},
}


def test_what_does_not_run_in_a_kernel_is_excluded_by_name():
    listed = set(read_contracts()["importlinter:contract:kernel-pure"]["source_modules"].split())
    for room, excluded in NOT_IN_A_KERNEL.items():
        if f"pipelines.{room}" not in listed:
            found = {path.stem for path in (ROOT / "pipelines" / room).iterdir() if is_module(path)}
            assert {name for name in found if f"pipelines.{room}.{name}" not in listed} == excluded, room
    assert {name for name in listed if name.split(".")[1] not in NOT_IN_A_KERNEL} == {
        "pipelines.kernels.inputs",
        "pipelines.kernels.kinds",
        "pipelines.kernels.plan",
        "pipelines.kernels.session",
    }


def is_module(path):
    return path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").exists())


def read_contracts():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return {name: settings[name] for name in settings.sections() if name.startswith("importlinter:contract:")}
