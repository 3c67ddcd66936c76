"""A row becomes text in one place, for training and prediction alike: a second prompt is the costliest bug there is."""

import ast
from collections import defaultdict
from functools import cache

from project import ROOT


@cache
def callers_by_name():
    """Name of a function or method -> those who call it, as "file:function"."""
    found = defaultdict(set)
    for path in sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("pipelines/**/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
                found[name].add(f"{path.name}:{function.name}")
    return found


def callers(name):
    return sorted(callers_by_name()[name])


def test_one_function_asks_the_competition_for_its_prompt():
    assert callers("build_prompt") == ["prompts.py:build_prompts"]


def test_training_and_prediction_encode_by_that_function():
    assert callers("build_prompts") == ["prompts.py:build_segments", "prompts.py:list_texts", "t5.py:_encode"]
    assert callers("build_segments") == ["bert.py:_segments"]
    # Beside the rows of training and prediction, those that are counted before.
    assert callers("_segments") == ["bert.py:_encode", "bert.py:_inspect_inputs"]
    assert callers("_encode") == [
        "neural.py:_build_loop",
        "neural.py:_predict_with",
        "t5.py:_predict_with",
    ]
    # The vocabularies' corpus is the same prompts.
    assert callers("list_texts") == ["prompts.py:list_companion_texts", "t5.py:prepare"]


def test_no_competition_has_a_second_prompt():
    for path in sorted((ROOT / "pipelines/competitions").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        builders = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and "prompt" in node.name]
        assert builders in ([], ["build_prompt"]), path.name
