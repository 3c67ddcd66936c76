"""A submission made again in a second clone from the record of the first, and what is said where something differs."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from project import ROOT
from rich.console import Console
from tiny_competition import write_lines
from tiny_images import write_leaves

from components.files.digests import file_digest
from pipelines.errors import PodiumError
from pipelines.kernels.built_kernel import load_built_kernel
from pipelines.kernels.manifest import BuildFlags
from pipelines.kernels.submitted_kernel import SubmittedKernel
from pipelines.reproduction.checkout import run_podium
from pipelines.reproduction.reproduce import reproduce
from pipelines.reproduction.winner.package import write_winner_package
from pipelines.runs.run import Run
from pipelines.runs.submission import Host, Status, Submission, read_submissions
from pipelines.submissions.ledger import Ledger, enter_submission
from pipelines.workspace import Workspace

REF = "local:place_names:1"
EXPERIMENT = "experiment: smoke/mt5_adafactor"
LEAVES = """\
name: leaves
competition: cassava_leaf_disease
model: {name: xcit, architecture: xcit_nano_12_p16_224, embed_dim: 16, depth: 1, num_heads: 2}
data: {name: images, img_size: 32}
optimizer: {name: adamw, lr: 1e-3}
schedule: {name: cosine, num_warmup_steps: 1}
folds: {name: stratified, num_folds: 2}
training: {num_steps: 3, batch_size: 8, num_threads: 1}
"""
COMMAND = ["train", "smoke/mt5_adafactor", "tracking.name=none", "data.vocabulary=character", "training.num_threads=1"]


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    result = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.strip()


@pytest.fixture(scope="module")
def first(template, tmp_path_factory):
    """A repository of its own with uncommitted changes, in which a run was trained and submitted."""
    root = tmp_path_factory.mktemp("first") / "checkout"
    for package in ("components", "pipelines"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(template, root, dirs_exist_ok=True)
    for name in (".gitignore", "setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    write_lines(root / "kernels" / "tiny-kernel" / "kernel.yaml", "title: Tiny kernel", "mode: predict", EXPERIMENT)
    write_lines(root / "kernels" / "tiny-kernel" / "notebook.md", "A kernel.")
    write_lines(root / "kernels" / "tiny-training" / "kernel.yaml", "title: Tiny training", "mode: train", EXPERIMENT)
    write_lines(root / "kernels" / "tiny-training" / "notebook.md", "A training.")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all of it")
    errors = root / "pipelines" / "errors.py"
    errors.write_text(errors.read_text() + "\nNOT_COMMITTED = 1\n")
    (root / "pipelines" / "new_module.py").write_text("ANSWER = 42\n")
    run_podium(root, COMMAND)
    run_podium(root, ["submit", "smoke/mt5_adafactor"])
    run_podium(root, ["kernel", "build", "tiny-kernel"], {"KAGGLE_USERNAME": "alice"})
    enter_kernel(Workspace(root))
    run_podium(root, ["kernel", "build", "tiny-training", "--resume"], {"KAGGLE_USERNAME": "alice", "SMOKE": "1"})
    enter_kernel(Workspace(root), "tiny-training", 78)
    git(root, "add", "ledger")
    git(root, "commit", "--quiet", "--message", "a submission")
    return Workspace(root)


def enter_kernel(workspace, name="tiny-kernel", ref=77):
    """As if the kernel's output, the very file of the run, had been submitted on Kaggle."""
    (run,) = Run.list(workspace.runs)
    (entry,) = read_submissions(run.submissions_file)
    kernel = SubmittedKernel.built(load_built_kernel(workspace, name).manifest, 2)
    enter_submission(workspace, run, replace(entry, host=Host.KAGGLE, ref=ref), kernel=kernel)


@pytest.fixture
def second(first, tmp_path):
    """Another clone with the same data; runs/ is not here."""
    root = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(first.root), str(root))
    shutil.copytree(first.data / "place-names", root / "data" / "place-names")
    return Workspace(root)


def outcome(workspace, *options, **keywords):
    screen = Console(file=io.StringIO(), width=200)
    is_equal = reproduce(workspace, REF, console=screen, **keywords)
    return is_equal, screen.file.getvalue().splitlines()


def test_equal_bytes_in_a_second_clone(first, second, tmp_path):
    is_equal, said = outcome(second, weights=[first.runs], into=tmp_path / "kept")
    record = Ledger(second.ledger).find(REF)
    assert said == [
        f"{REF}: smoke_mt5_adafactor {record.run}, commit {record.commit[:12]}",
        "  source     equal, with its uncommitted changes",
        f"  data       3 files equal in {second.data / 'place-names'}",
        "  libraries  equal, and so is the kind of processor",
        "  weights    3 files equal",
        "  submission equal",
        f"equal: the submission of {REF}, byte for byte",
    ]
    assert is_equal
    run = f"runs/smoke_mt5_adafactor/{record.run}"
    assert (tmp_path / "kept" / run / "submission.csv").read_bytes() == (
        first.root / run / "submission.csv"
    ).read_bytes()
    assert (tmp_path / "kept" / "pipelines" / "new_module.py").is_file()
    assert not second.runs.exists(), "the clone that asks is left alone"
    assert record.diff.secrets_removed == 0


def test_the_kernel_of_a_submission_is_built_again(first, second):
    screen = Console(file=io.StringIO(), width=200)
    assert reproduce(second, "kaggle:77", weights=[first.runs], console=screen)
    assert screen.file.getvalue().splitlines()[-3:] == [
        "  submission equal",
        "  kernel     equal: alice/tiny-kernel version 2, notebook and datasets",
        "equal: the submission of kaggle:77, byte for byte",
    ]


def test_a_kernel_is_built_again_with_the_flags_it_was_built_with(first):
    """A version that went on from its own output, and was cut to a few steps, is not what kernel.yaml alone says."""
    kernel = Ledger(first.ledger).find("kaggle:78").kernel
    assert kernel.built_with == BuildFlags(resume=True, mode="smoke")
    screen = Console(file=io.StringIO(), width=200)
    assert reproduce(first, "kaggle:78", console=screen), screen.file.getvalue()
    assert "  kernel     equal: alice/tiny-training version 2, notebook and datasets" in screen.file.getvalue()


def test_other_bytes_with_another_library(first, second):
    record = Ledger(second.ledger).find(REF)
    versions = {**record.versions, "torch": "0.4.1"}
    Ledger(second.ledger).write(replace(record, versions=versions, submission_sha256="0" * 64))
    is_equal, said = outcome(second, weights=[first.runs])
    assert not is_equal
    line = f"versions.torch: recorded 0.4.1, here {record.versions['torch']}"
    assert said[3] == f"  {line}"
    assert said[5].startswith(f"  submission_sha256: recorded {'0' * 16}, here {record.submission_sha256[:16]} (")
    assert said[6] == f"differs: {line}"


def test_one_byte_of_the_data(first, second):
    path = second.data / "place-names" / "test.csv"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    is_equal, said = outcome(second, weights=[first.runs])
    assert not is_equal
    digest = Ledger(second.ledger).find(REF).data_sha256["test.csv"]
    assert said[-1].startswith(f"differs: data_sha256.test.csv: recorded {digest[:16]}, here ")
    assert said[-1].endswith(f" ({path})")


def test_weights_that_are_others_or_nowhere(first, second):
    record = Ledger(second.ledger).find(REF)
    (name, digest) = next(item for item in record.weights_sha256.items() if item[0].endswith(".safetensors"))
    _, said = outcome(second)
    assert said[-1] == (
        f"differs: weights_sha256.{name}: recorded {digest[:16]}, here none "
        "(name the folder that holds it with --weights)"
    )
    path = second.runs / "smoke_mt5_adafactor" / record.run / name
    path.parent.mkdir(parents=True)
    path.write_bytes((first.runs / "smoke_mt5_adafactor" / record.run / name).read_bytes() + b"\0")
    _, said = outcome(second)
    assert said[-1].startswith(f"differs: weights_sha256.{name}: recorded {digest[:16]}, here ")
    assert said[-1].endswith(f" ({path})")


def test_what_is_not_to_be_had(first, second, tmp_path):
    with pytest.raises(
        PodiumError, match=r"kaggle:1: no submission in .* has this ref; its last ones are local:place_"
    ):
        reproduce(second, "kaggle:1")
    record = Ledger(second.ledger).find(REF)
    with pytest.raises(PodiumError, match="not empty; name a new folder"):
        reproduce(second, REF, into=second.root)
    (second.ledger / "files" / record.diff.sha256).unlink()
    with pytest.raises(PodiumError, match=r"its run had uncommitted changes, and .* is missing: commit ledger/ whole"):
        reproduce(second, REF)
    shutil.rmtree(second.root / ".git")
    with pytest.raises(PodiumError, match="no git checkout; run this where the project was cloned"):
        Ledger(second.ledger).write(replace(record, diff=None))
        reproduce(second, REF)
    git(second.root, "init", "--quiet")
    with pytest.raises(PodiumError, match=f"commit {record.commit}: not in the repository at .*; `git fetch`"):
        reproduce(second, REF)


def test_training_again_gives_the_same_weights(first):
    is_equal, said = outcome(first, retrain=True)
    assert said[-4:] == [
        f"  training   podium {' '.join(COMMAND)}",
        "  weights    3 files equal",
        "  submission equal",
        f"equal: the submission of {REF}, byte for byte",
    ]
    assert is_equal


@pytest.fixture
def orchard(first, tmp_path):
    """A clone with a run on images that lie in folders, entered as if Kaggle had taken its submission."""
    root = tmp_path / "orchard"
    git(tmp_path, "clone", "--quiet", str(first.root), str(root))
    (root / "experiments" / "leaves.yaml").write_text(LEAVES, encoding="utf-8")
    git(root, "add", "experiments")
    git(root, "commit", "--quiet", "--message", "an experiment on images")
    workspace = Workspace(root)
    write_leaves(workspace.data_dir("cassava-leaf-disease-classification"))
    run_podium(root, ["train", "leaves", "tracking.name=none"])
    (run,) = Run.list(workspace.runs)
    facts = {"host": Host.KAGGLE, "competition": "cassava_leaf_disease", "ref": 5, "status": Status.COMPLETE}
    facts |= {"time": "2026-11-25T20:00:00+00:00", "sha256": file_digest(run.submission_file)}
    enter_submission(workspace, run, Submission(**facts))
    return workspace


@pytest.mark.parametrize("retrain", [False, True])
def test_a_competition_of_image_folders(orchard, retrain, tmp_path):
    """The images are read where they lie, by the training too; folds are made anew."""
    data = orchard.data_dir("cassava-leaf-disease-classification")
    before = sorted(data.rglob("*"))
    assert (data / "folds").is_dir()
    screen = Console(file=io.StringIO(), width=200)
    assert reproduce(orchard, "kaggle:5", retrain=retrain, into=tmp_path / "kept", console=screen)
    assert screen.file.getvalue().endswith("equal: the submission of kaggle:5, byte for byte\n")
    assert sorted(data.rglob("*")) == before
    copy = Workspace(tmp_path / "kept").data_dir(data.name)
    if retrain:
        assert (copy / "train_images").is_symlink()
        assert not (copy / "folds").is_symlink()


def test_the_entry_points_of_a_winners_package_run(first, tmp_path):
    package = write_winner_package(first, REF, into=tmp_path / "package")
    record = Ledger(first.ledger).find(REF)
    assert {path.name for path in package.iterdir()} == {
        "README.md", "SETTINGS.json", "entry_points.md", "requirements.txt", "MODEL_SUMMARY.md", "record.json",
        "directory_structure.txt", "package.py", "prepare_data.py", "train.py", "predict.py", "source", "model",
    }  # fmt: skip
    settings = json.loads((package / "SETTINGS.json").read_text())
    assert (package / "source" / "pipelines" / "new_module.py").is_file()
    assert f"torch=={record.versions['torch']}\n" in (package / "requirements.txt").read_text()
    assert record.submission_sha256 in (package / "README.md").read_text()
    assert f"{record.run}/config.yaml" in (package / "directory_structure.txt").read_text()
    shutil.copytree(first.data / "place-names", package / settings["RAW_DATA_DIR"])
    moved = package.rename(tmp_path / "moved")
    assert call(moved, "prepare_data.py") == f"{moved / settings['CLEAN_DATA_DIR']}: 3 files"
    submitted = f"{moved / 'submission' / 'submission.csv'}: the submitted file, byte for byte"
    assert call(moved, "predict.py") == submitted
    trained = call(moved, "train.py").split()[-1]
    assert trained != record.run
    assert call(moved, "predict.py", trained) == submitted
    with pytest.raises(PodiumError, match="is there already; remove it, or name another folder"):
        write_winner_package(first, REF, into=moved)


def call(package, script, *arguments):
    """The last line that an entry point prints, called from elsewhere."""
    command = [sys.executable, str(package / script), *arguments]
    result = subprocess.run(command, cwd=package.parent, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1]
