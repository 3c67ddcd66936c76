"""Changes on a commit that others wrote into ledger/: nothing leads out of the clone that they are applied in."""

import hashlib
import os
import subprocess
from dataclasses import replace

import pytest
from canary import PRIVATE, make_canary, untouched
from hostile_records import REF, RUN, entry_of
from tiny_competition import write_lines

from pipelines.errors import PodiumError
from pipelines.kernels.submitted_kernel import KeptDiff
from pipelines.reproduction.checkout import check_out, inside
from pipelines.reproduction.file_finder import FileFinder
from pipelines.reproduction.kernel_rebuilding import rebuild_kernel
from pipelines.reproduction.rebuilding import gather_run, rebuild_source
from pipelines.submissions.ledger import Ledger
from pipelines.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    make_canary(tmp_path / "outside")
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.runs / "smoke_first_try" / RUN / "run.json", "{}")
    return workspace


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    result = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.strip()


@pytest.fixture
def repository(workspace):
    """A commit with a file, a link inside and folders that are links out of it."""
    root, outside = workspace.root, workspace.root.parent / "outside"
    git(root, "init", "--quiet")
    write_lines(root / "a.txt", "a")
    (root / "b.txt").symlink_to("a.txt")
    (root / "out").symlink_to(outside)
    git(root, "add", "a.txt", "b.txt", "out")
    git(root, "commit", "--quiet", "--message", "all of it")
    return root


def link_patch(name, target):
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 120000\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{target}\n"
        "\\ No newline at end of file\n"
    )


def file_patch(name):
    return f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+text\n"


def rebuild(workspace, patch):
    ledger = Ledger(workspace.ledger)
    diff = KeptDiff(sha256=ledger.keep(patch.encode()))
    source = entry_of(workspace, commit=git(workspace.root, "rev-parse", "HEAD"), diff=diff)
    rebuild_source(workspace.root, ledger, REF, source, workspace.root.parent / "clone")
    return workspace.root.parent / "clone"


@pytest.mark.parametrize(
    ("patch", "match"),
    [
        (link_patch("evil", "OUT"), "make a symbolic link that leads out of the checkout: evil -> .*outside; take it"),
        (link_patch("evil", "../outside/secret.txt"), "a symbolic link that leads out of the checkout: evil -> "),
        (link_patch("x", "y") + link_patch("y", "OUT"), "that leads out of the checkout: x -> y"),
        (link_patch("loop", "loop"), "that leads out of the checkout: loop -> loop"),
        (
            link_patch("evil", "OUT") + file_patch("evil/new.txt"),
            "do not apply to the commit: .*beyond a symbolic link",
        ),
        (file_patch("out/new.txt"), "do not apply to the commit: .*beyond a symbolic link"),
        (file_patch("../outside/new.txt"), "do not apply to the commit: .*invalid path"),
        (file_patch(".git/hooks/post-checkout"), "do not apply to the commit: .*invalid path"),
    ],
)
def test_changes_that_lead_out_of_the_clone(workspace, repository, patch, match):
    outside = workspace.root.parent / "outside"
    with untouched(outside), pytest.raises(PodiumError, match=match):
        rebuild(workspace, patch.replace("OUT", str(outside)))
    assert not (workspace.root.parent / "clone").exists(), "nothing is left half-written"


def test_changes_that_stay_inside_are_applied(workspace, repository):
    clone = rebuild(workspace, link_patch("c.txt", "a.txt") + file_patch("new.txt"))
    assert (clone / "c.txt").read_text() == "a\n"
    assert (clone / "new.txt").read_text() == "text\n"
    assert (clone / "out").is_symlink(), "what the commit itself has is the repository's"


def test_a_run_is_not_gathered_through_a_link_of_the_commit(workspace, repository):
    clone = rebuild(workspace, file_patch("new.txt"))
    outside = workspace.root.parent / "outside"
    with (
        untouched(outside),
        pytest.raises(PodiumError, match=r"a symbolic link where a file is to be written: .*leads"),
    ):
        inside(clone, clone / "out" / "run.json")
    ledger = Ledger(workspace.ledger)
    digest = ledger.keep(b"a: 1\n")
    run = clone / "run"
    run.mkdir()
    (run / "fold0").symlink_to(outside)
    files = {"fold0/secret.txt": digest}
    record = entry_of(workspace, config_sha256=digest, files_sha256=files, weights_sha256={})
    with untouched(outside), pytest.raises(PodiumError, match=r"where a file is to be written: .*fold0/secret.txt"):
        gather_run(ledger, record, FileFinder([]), workspace.runs, run)
    (clone / "runs").symlink_to(outside)
    kernel = replace(record.kernel, files_sha256={"folds.csv": digest})
    with untouched(outside), pytest.raises(PodiumError, match=r"where a file is to be written: .*folds.csv"):
        rebuild_kernel(workspace, ledger, replace(record, kernel=kernel), FileFinder([]), Workspace(clone))


@pytest.mark.parametrize("commit", ["--help", "-q", "HEAD", "main:a.txt"])
def test_only_a_commits_id_is_checked_out(workspace, repository, commit):
    with pytest.raises(PodiumError, match=r"commit: .* is no commit"):
        check_out(repository, commit, workspace.root.parent / "clone")
    assert not (workspace.root.parent / "clone").exists()


def test_weights_that_are_links_arrive_as_files(workspace, tmp_path):
    """As a cache of downloads keeps them: a link to a blob."""
    blob = tmp_path / "cache" / "blob"
    blob.parent.mkdir()
    blob.write_bytes(PRIVATE)
    link = tmp_path / "weights" / "model.safetensors"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(blob, link.parent))
    ledger = Ledger(workspace.ledger)
    digest = hashlib.sha256(PRIVATE).hexdigest()
    weights = {"m.safetensors": digest}
    record = entry_of(workspace, config_sha256=ledger.keep(b"a: 1\n"), files_sha256={}, weights_sha256=weights)
    assert gather_run(ledger, record, FileFinder([link.parent]), workspace.runs, tmp_path / "run") is None
    assert not (tmp_path / "run" / "m.safetensors").is_symlink()
    assert (tmp_path / "run" / "m.safetensors").read_bytes() == PRIVATE
