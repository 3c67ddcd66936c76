"""The import contracts hold, and each catches the import it is there for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("components/metrics/table.py", "import mlflow", "Components know tensors"),
        ("components/data/text/dataset.py", "def late():\n    import omegaconf", "Components know tensors"),
        ("pipelines/engine/prediction.py", "import mlflow", "What runs inside a kernel"),
        ("pipelines/competitions/competition.py", "def late():\n    import kaggle", "What runs inside a kernel"),
        ("components/seeding.py", "import pipelines.cli", "One-way street"),
        ("pipelines/adapters/kernel_session.py", "import pipelines.adapters.tracking", "What runs inside a kernel"),
        ("pipelines/engine/scoring.py", "import pipelines.adapters.local_host", "What runs inside a kernel"),
        ("pipelines/stages/predict.py", "import pipelines.stages.train", "Stages know nothing of each other"),
        ("pipelines/engine/observer.py", "import omegaconf", "Only pipelines.config"),
        ("pipelines/stages/train.py", "import mlflow", "Only the MLflow tracker"),
        ("pipelines/stages/push.py", "def late():\n    import kagglesdk", "Only Kaggle's session"),
    ],
)
def test_a_planted_import_is_found(copy, module, line, contract):
    path = copy / module
    path.write_text(path.read_text() + f"\n{line}\n")
    result = lint(copy)
    assert result.returncode != 0
    assert f"{contract}" in result.stdout
    broken = next(row for row in result.stdout.splitlines() if row.startswith(contract))
    assert "BROKEN" in broken
