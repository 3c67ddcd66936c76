"""Settings of the whole process have one owner: nobody else changes what all code of the process runs under."""

import re

from project import ROOT

SETTINGS = re.compile(
    r"\b(set_flush_denormal|set_num_threads|set_num_interop_threads|keep_freed_memory|mallopt|use_deterministic_algorithms"
    r"|allow_tf32|set_float32_matmul_precision)\b"
)
OWNERS = {"components/process_settings.py", "components/memory/host_memory.py"}


def users(pattern, folders):
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    return {path.relative_to(ROOT).as_posix() for path in files if pattern.search(path.read_text(encoding="utf-8"))}


def test_only_their_owner_changes_them():
    assert users(SETTINGS, ("components", "pipelines", "benchmarks")) == OWNERS


def test_they_are_applied_where_a_run_starts():
    callers = users(re.compile(r"\b(tune|join_processes)\(experiment\)"), ("components", "pipelines"))
    assert callers == {
        "pipelines/kernels/session.py",
        "pipelines/runs/processes.py",
        "pipelines/training/find_lr.py",
        "pipelines/training/prediction.py",
        "pipelines/training/train.py",
    }
