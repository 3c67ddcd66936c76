"""The house's budgets: no function over 80 lines, no file over 400, every argument annotated."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("pipelines/**/*.py")])


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_files_and_functions_stay_small():
    lengths = {}
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
        for node in functions(path):
            assert node.end_lineno is not None
            lengths[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert len(lengths) > 300
    assert max(lengths.values()) <= 80, max(lengths, key=lengths.get)
    ordered = sorted(lengths.values())
    assert statistics.median(ordered) <= 12
    assert ordered[int(0.9 * len(ordered))] <= 40


def test_experiments_and_kernels_hold_no_python():
    for folder in ("experiments", "kernels"):
        assert list((ROOT / folder).rglob("*.py")) == []
