"""A record's keys are known to its own module alone: everybody else has an object with fields."""

import ast
from collections import defaultdict

import pytest
from project import ROOT

FILES = sorted((ROOT / "pipelines").rglob("*.py"))
PARSED = {
    path.relative_to(ROOT / "pipelines").as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES
}

# Columns of the tables and batches that learners read: whoever takes a column takes no record's field.
COLUMNS = {"id", "image"}
# Mappings that are no record of ours, where a field's name is another thing.
NO_RECORDS = {
    "competitions/catalogue/": "rows of the sources that competitions are made from",
    "competitions/local_host.py": "the cached scores of the baselines",
    "config/": "sections of an experiment file",
    "kaggle/kernels.py": "the events of Kaggle's log",
    "kernels/build.py": "a section of an experiment file, and the table under a notebook's words",
    "kernels/rehearsal/cell_runner.py": "cells of a notebook; it knows the standard library only",
    "kernels/wheels.py": "the report of pip",
    "learners/figures.py": "rows of a training's history",
    "learners/t5.py": "a batch",
    "records.py": "what pydantic says of a mistake",
    "reproduction/checkout.py": "what a clone's command line answers",
    "runs/fold_file.py": "a section of an experiment file",
    "runs/foreign.py": "a run.json of others, looked at before it is read as a record",
    "runs/lock.py": "who holds a lock, for people to read",
    "runs/starting_point.py": "a section of an experiment file",
    "search/page/app.py": "the state of a page in streamlit",
    "search/remote.py": "the answer of a search server",
    "submissions/ledger.py": "lines of the ledger of a former version, merged before they are read as records",
    "tracking/": "events and values of a tracked run, of many forms",
}


def record_classes(modules):
    """Each class below `Record`, by its name: its module, and its own fields."""
    found, bases = {}, {"Record"}
    while True:
        new = {
            node.name: (module, {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)})
            for module, tree in modules.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in bases for base in node.bases)
        }
        if new.keys() == found.keys():
            return new
        found, bases = new, bases | new.keys()


def homes_of_fields(modules):
    """Field -> the modules that define a record with it."""
    homes = defaultdict(set)
    for module, fields in record_classes(modules).values():
        for field in fields:
            homes[field].add(module)
    return homes


def literal_keys(tree):
    """Every `x["key"]` and `x.get("key")` with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get" and node.args:
            key = node.args[0]
        else:
            continue
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, node.lineno


def violations(modules, exempt=()):
    homes = homes_of_fields(modules)
    return [
        f"{module}:{line}: {key}"
        for module, tree in modules.items()
        if not module.startswith(tuple(exempt))
        for key, line in sorted(literal_keys(tree), key=lambda found: found[1])
        if key not in COLUMNS and key in homes and module not in homes[key]
    ]


def test_no_key_of_a_record_is_written_outside_its_module():
    assert len(record_classes(PARSED)) > 15
    assert violations(PARSED, exempt=tuple(NO_RECORDS)) == []


def test_every_exception_is_needed():
    found = violations(PARSED)
    assert [place for place in NO_RECORDS if not any(line.startswith(place) for line in found)] == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ('push["bundle_sha256"]', True),
        ('push.get("bundle_sha256", "")', True),
        ('push["bundle_sha256"] = "x"', True),
        ('push["of no record"]', False),
        ("push[key]", False),
        ("push.bundle_sha256", False),
        ('table["id"]', False),
    ],
)
def test_a_planted_key_is_found(line, is_found):
    planted = {"screen.py": ast.parse(f"def read(push, table, key):\n    {line}")}
    assert violations(PARSED | planted, exempt=tuple(NO_RECORDS)) == (
        ["screen.py:2: bundle_sha256"] if is_found else []
    )


def test_a_record_below_a_record_counts_and_its_own_module_may_name_its_keys():
    modules = {
        "kinds.py": "class Thing(Record):\n    colour: str",
        "things.py": "class Special(Thing):\n    shade: str\n\n\ndef read(x):\n    return x['shade'], x['colour']",
    }
    assert violations({name: ast.parse(text) for name, text in modules.items()}) == ["things.py:6: colour"]
