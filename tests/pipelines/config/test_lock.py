import json

import pytest

from pipelines.config.lock import LockChanges, changed_experiments, write_lock
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace

BASE = """\
name: base
competition: letters
model: {name: t5_from_scratch}
data: {name: text}
optimizer: {name: adafactor, lr: 3e-2}
schedule: {name: constant}
training: {num_steps: 100}
"""
BASELINE = "name: linear\ncompetition: letters\nmodel: {name: linear_baseline}\ndata: {name: table}\n"


def folds_of(competition):
    return {"name": "stratified", "num_folds": 4}


def workspace_of(root, **files):
    workspace = Workspace(root)
    workspace.experiments.mkdir(exist_ok=True)
    for name, text in files.items():
        (workspace.experiments / f"{name}.yaml").write_text(text)
    return workspace


def test_the_lock_names_what_a_change_alters(tmp_path):
    child = "name: child\nparent: base\n"
    workspace = workspace_of(tmp_path, base=BASE, child=child, linear=BASELINE)
    assert write_lock(workspace, folds_of=folds_of) == LockChanges(added=("base", "child", "linear"))
    locked = json.loads(workspace.resolved_lock.read_text())
    assert list(locked) == ["base", "child", "linear"]
    assert all(len(digest) == 64 for digest in locked.values())
    assert not changed_experiments(workspace, folds_of=folds_of)
    assert sorted(path.name for path in workspace.experiments.iterdir()) == [
        "base.yaml", "child.yaml", "linear.yaml", "resolved.lock",
    ]  # fmt: skip

    # a comment and a spelt-out default alter nothing; a field of the parent alters the child
    workspace_of(tmp_path, base="# why\n" + BASE.replace("num_steps: 100", "num_steps: 100, batch_size: 32"))
    assert not changed_experiments(workspace, folds_of=folds_of)
    workspace_of(tmp_path, base=BASE.replace("3e-2", "1e-2"), new=BASE.replace("base", "new"))
    (workspace.experiments / "linear.yaml").unlink()
    changes = changed_experiments(workspace, folds_of=folds_of)
    assert changes == LockChanges(changed=("base", "child"), added=("new",), removed=("linear",))
    assert str(changes) == "changed: base, child; added: new; removed: linear"
    assert str(LockChanges()) == "nothing changed"


def test_a_competitions_new_default_folds_show_in_the_lock(tmp_path):
    workspace = workspace_of(tmp_path, base=BASE)
    write_lock(workspace, folds_of=folds_of)
    changes = changed_experiments(workspace, folds_of=lambda name: {"name": "kfold", "num_folds": 4})
    assert changes == LockChanges(changed=("base",))


@pytest.mark.parametrize("content", ["<<<<<<< ours", "[1]"])
def test_a_damaged_lock_is_named_and_can_be_written_anew(tmp_path, content):
    workspace = workspace_of(tmp_path, base=BASE)
    workspace.resolved_lock.write_text(content)
    with pytest.raises(ConfigError, match=r"experiments/resolved\.lock: .*; `make lock` writes it anew"):
        changed_experiments(workspace, folds_of=folds_of)
    write_lock(workspace, folds_of=folds_of)
    assert not changed_experiments(workspace, folds_of=folds_of)
