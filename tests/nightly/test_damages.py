"""A hundred seeded damages to finished and interrupted runs: one line that names a file, or the very same result."""

import random
import shutil

import pytest
from podium_processes import only_run, products
from small_runs import TEXT, copied, interrupt, podium, random_damage, refused

from pipelines.workspace import Workspace

pytestmark = pytest.mark.nightly

SHORT = ("data.max_target_length=12",)
EXPERIMENTS = {
    "text": (*TEXT, *SHORT),
    "table": ("bbc_headlines_linear", "tracking.name=none", "folds.name=stratified", "folds.num_folds=2"),
    "images": (
        "smoke/xcit_nano_fashion", "tracking.name=none", "training.num_threads=1", "training.checkpoint_every_steps=2",
        "training.ema_decay=0.9",
    ),
}  # fmt: skip
# Damages to the finished run of a kind, and as many to the interrupted one: a hundred in all.
SEEDS = {"text": 22, "table": 18, "images": 10}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def runs(request, template, tmp_path_factory):
    """A workspace with a finished run, and one with the same run interrupted."""
    words, folder = EXPERIMENTS[request.param], tmp_path_factory.mktemp(request.param)
    finished = copied(Workspace(template), folder / "finished")
    podium(finished, "train", *words)
    stopped = copied(Workspace(template), folder / "stopped")
    with pytest.MonkeyPatch.context() as patch, pytest.raises((SystemExit, KeyboardInterrupt)):
        if request.param == "table":
            patch.setattr("pipelines.training.training_run._split", _killing_at(2))
        else:
            interrupt(patch, 9 + 8 if request.param == "text" else 4)
        podium(stopped, "train", *words)
    return request.param, finished, stopped


def _killing_at(count):
    from pipelines.training import training_run

    original, calls = training_run._split, iter(range(1, 100))

    def split(*arguments):
        if next(calls) == count:
            raise KeyboardInterrupt
        return original(*arguments)

    return split


def damage(workspace, seed):
    source = random.Random(seed)
    path = source.choice(sorted(path for path in only_run(workspace).rglob("*") if path.is_file()))
    return path, random_damage(path, source)


def test_damages_to_a_finished_run(runs, tmp_path, capsys):
    kind, finished, _ = runs
    submission = (only_run(finished) / "submission.csv").read_bytes()
    for seed in range(SEEDS[kind]):
        workspace = copied(finished, tmp_path / str(seed))
        path, how = damage(workspace, seed)
        run = next(workspace.runs.glob("*/*"))
        for command in (("predict", "--run", str(run)), ("submit", "--run", str(run))):
            message = refused(workspace, capsys, *command)
            assert "\n" not in message, (seed, path, how)
            if not message:
                assert (run / "submission.csv").read_bytes() == submission, (seed, path, how)
            elif path.exists():
                assert path.name in message, (seed, path, how)
        for command in (("compare",), ("runs", "list")):
            assert "\n" not in refused(workspace, capsys, *command), (seed, path, how)
        shutil.rmtree(workspace.root)


def test_damages_to_an_interrupted_run(runs, tmp_path, capsys):
    kind, finished, stopped = runs
    straight = products(only_run(finished))
    for seed in range(1000, 1000 + SEEDS[kind]):
        workspace = copied(stopped, tmp_path / str(seed))
        path, how = damage(workspace, seed)
        run = next(workspace.runs.glob("*/*"))
        message = refused(workspace, capsys, "resume", "--run", str(run))
        assert "\n" not in message, (seed, path, how)
        if not message:
            # The resume point of a fold that is done is never read again, and stays as it is.
            unused = str(path.relative_to(run)) if "fold0/resume" in str(path) else ""
            assert products(run) | {unused: b""} == straight | {unused: b""}, (seed, path, how)
        elif path.exists():
            assert path.name in message, (seed, path, how, message)
        shutil.rmtree(workspace.root)
