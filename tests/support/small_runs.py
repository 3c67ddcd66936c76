"""Runs of a few seconds in this process, and the damages that can be done to their files."""

import json
import random
import shutil

from pipelines.cli import main
from pipelines.workspace import Workspace

TEXT = (
    "smoke/mt5_adafactor", "tracking.name=none", "folds.name=group", "folds.num_folds=2", "data.vocabulary=character",
    "training.num_steps=9", "training.eval_every_steps=4", "training.checkpoint_every_steps=3",
    "training.ema_decay=0.9", "model.dropout=0.1", "training.num_threads=1",
)  # fmt: skip


def podium(workspace, *words):
    main(["--root", str(workspace.root), *words])


def refused(workspace, capsys, *words):
    """The one line with which a command ends; "" where it ends well."""
    capsys.readouterr()
    code = 0
    try:
        podium(workspace, *words)
    except SystemExit as exit_:
        code = exit_.code
    assert code in (0, 2)
    return capsys.readouterr().err.rpartition("podium: ")[2].strip() if code else ""


def copied(workspace, root):
    shutil.copytree(workspace.root, root)
    return Workspace(root)


def interrupt(monkeypatch, step):
    """A Ctrl-C that the loop heeds after its `step`-th step."""
    from pipelines.runs.observer import RunObserver

    calls = iter(range(1, step + 1))
    monkeypatch.setattr(RunObserver, "should_stop", lambda self: next(calls) == step)


def flip(path, *, byte=None, bit=6):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if byte is None else byte] ^= 1 << bit
    path.write_bytes(content)


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def random_damage(path, random_source: random.Random):
    """A flipped bit, half of them where weights have their exponents; a cut; or nothing left of the file."""
    kind = random_source.choice(["flip", "exponent", "cut", "delete"])
    size = path.stat().st_size
    if kind == "delete" or size == 0:
        path.unlink()
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[: random_source.randrange(size)])
    else:
        # The last byte of a little-endian float holds its sign and the high bits of its exponent.
        byte = size - 1 - 4 * random_source.randrange(max(1, size // 8)) if kind == "exponent" else None
        bit = 6 if kind == "exponent" else random_source.randrange(8)
        flip(path, byte=random_source.randrange(size) if byte is None else byte, bit=bit)
    return kind


def strip_digests(run, *keys):
    """A run as an older version left it: without digests, and without these entries of its record."""
    for path in (run / "run.json", *run.glob("*/result.json"), *run.glob("*/resume/*/state.json")):
        content = json.loads(path.read_text())
        for key in ("files_sha256", "own_sha256", "checkpoints", *keys):
            content.pop(key, None)
        path.write_text(json.dumps(content))
    for path in (*run.rglob("digests.json"), *run.glob("*/resume/*/history.jsonl")):
        path.unlink()
