"""The house's budgets: no function over 80 lines, no file over 400, every argument annotated."""

import ast
import statistics
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from project import ROOT, SUPPORT

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


CLOSED_TABLES = ("pipelines/competitions/catalogue",)


def test_a_room_is_a_handful_of_modules():
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in FILES} - set(CLOSED_TABLES)
    sizes = {room: len(list((ROOT / room).glob("*.py"))) for room in rooms}
    assert len(sizes) > 40
    assert {room: size for room, size in sizes.items() if size > 18} == {}


def test_no_folder_of_tests_on_the_path_shadows_a_package():
    """Without an `__init__.py`, too: a folder on the path is a package, and goes before a module that comes later."""
    folders = [Path(entry) for entry in sys.path if Path(entry).is_relative_to(ROOT / "tests")]
    assert set(folders) == {SUPPORT}
    ours = {path.stem for path in SUPPORT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert ours & {"components", "pipelines", "kernels", "kaggle", "ray", *packages_distributions()} == set()
    assert list((ROOT / "tests").glob("**/__init__.py")) == [SUPPORT / "kaggle_standin" / "__init__.py"]


def test_each_room_of_tests_is_a_room():
    """`tests/pipelines/runs/` holds the tests of `pipelines/runs/`."""
    tests = ROOT / "tests"
    folders = {path.parent for name in ("components", "pipelines") for path in (tests / name).rglob("test_*.py")}
    assert len(folders) > 30
    assert [folder for folder in folders if not (ROOT / folder.relative_to(tests) / "__init__.py").exists()] == []
