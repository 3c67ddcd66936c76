"""A submission's kernel built once more in a clone at its commit, and held against what was pushed."""

import shutil

from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.manifest import MANIFEST, Manifest
from pipelines.kernels.submitted_kernel import SubmittedKernel
from pipelines.reproduction.checkout import inside, run_podium
from pipelines.reproduction.difference import Difference
from pipelines.reproduction.file_finder import FileFinder
from pipelines.runs.run import run_place
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.workspace import Workspace


def rebuild_kernel(
    workspace: Workspace, ledger: Ledger, record: LedgerEntry, finder: FileFinder, clone: Workspace
) -> Difference | None:
    """Build the kernel in `clone`, where run and data are, and return the first digest that differs.

    Bytes are equal only with the owner of then, who is taken from the record. Raises PodiumError where the build fails.
    """
    kernel, run = record.kernel, run_place(clone.runs, record.experiment, record.run)
    assert kernel is not None
    arguments = ["kernel", "build", kernel.kernel.slug]
    if kernel.mode is KernelMode.PREDICT:
        arguments += ["--run", record.run]
        former = workspace.runs / run.parent.name / run.name
        for name, digest in kernel.files_sha256.items():
            source = ledger.kept(digest) or finder.find(name, digest, former / name)
            if source is None:
                return Difference(f"kernel.files_sha256.{name}", digest, None, "it was in the run directory")
            shutil.copyfile(source, inside(clone.root, run / name))
    wheels = workspace.build / "wheels"
    if wheels.is_dir():  # they need not be fetched again
        inside(clone.root, clone.build / "wheels").parent.mkdir(exist_ok=True)
        (clone.build / "wheels").symlink_to(wheels)
    # What changed the build beside kernel.yaml.
    flags = kernel.built_with
    arguments += ["--resume"] if flags and flags.resume else []
    mode = {flags.mode.upper(): "1"} if flags and flags.mode else {}
    run_podium(clone.root, arguments, {"KAGGLE_USERNAME": kernel.kernel.owner, **mode})
    return _compare(kernel, Manifest.read(clone.build / "kernels" / kernel.kernel.slug / MANIFEST))


def _compare(recorded: SubmittedKernel, built: Manifest) -> Difference | None:
    """The first file that is another: the datasets' first, for a notebook holds their digests."""
    if built.bundle_sha256 == recorded.bundle_sha256:
        return None
    here = _digests(built)
    for name, digest in _digests(recorded).items():
        if here.get(name) != digest:
            return Difference(f"kernel.{name}", digest, here.get(name))
    return Difference("kernel.bundle_sha256", recorded.bundle_sha256, built.bundle_sha256)


def _digests(of: SubmittedKernel | Manifest) -> dict[str, str]:
    digests = {f"datasets.{d.slug}.{name}": sha256 for d in of.datasets for name, sha256 in d.files.items()}
    return digests | {f"files.{name}": sha256 for name, sha256 in of.files.items()}
