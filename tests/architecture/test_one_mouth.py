"""What podium prints goes through `pipelines.screen`: letter for letter, results on stdout and progress on stderr."""

import ast

from project import ROOT

MOUTH = "pipelines/screen.py"
# Programs of their own: in a notebook, and in the package that a winner hands in.
ELSEWHERE = {"pipelines/kernels/session.py", "pipelines/kernels/rehearsal/cell_runner.py"}
# Rooms whose verbs still have mouths of their own.
TO_COME = ("pipelines/kernels/", "pipelines/submissions/")


def mouths(path):
    """The lines on which a module prints past the screen."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id == "print":
            yield node.lineno
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
            if name == "Console" or (name == "print" and isinstance(node.func, ast.Attribute)):
                yield node.lineno


def test_nothing_prints_past_the_screen():
    files = sorted((ROOT / "pipelines").rglob("*.py"))
    assert len(files) > 200
    found = {path.relative_to(ROOT).as_posix(): sorted(set(mouths(path))) for path in files}
    assert found[MOUTH]
    past = {place: lines for place, lines in found.items() if lines and place not in {MOUTH, *ELSEWHERE}}
    assert {place: lines for place, lines in past.items() if not place.startswith(TO_COME)} == {}
