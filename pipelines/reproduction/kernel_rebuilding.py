"""A submission's kernel built once more in a clone at its commit, and held against what was pushed."""

import json
import shutil
from collections.abc import Mapping

from pipelines.reproduction.checkout import inside, run_podium
from pipelines.reproduction.file_finder import FileFinder
from pipelines.submissions.ledger import Difference, Ledger, Record
from pipelines.workspace import Workspace


def rebuild_kernel(
    workspace: Workspace, ledger: Ledger, record: Record, finder: FileFinder, clone: Workspace
) -> Difference | None:
    """Build the kernel in `clone`, where run and data are, and return the first digest that differs.

    Bytes are equal only with the owner of then, who is taken from the record. Raises PodiumError where the build fails.
    """
    kernel, run = record["kernel"], clone.runs / record["experiment"].replace("/", "-") / record["run"]
    owner, slug = str(kernel["kernel"]).split("/")
    arguments = ["kernel", "build", slug]
    if kernel["mode"] == "predict":
        arguments += ["--run", record["run"]]
        former = workspace.runs / run.parent.name / run.name
        for name, digest in kernel["files_sha256"].items():
            source = ledger.kept(digest) or finder.find(name, digest, former / name)
            if source is None:
                return Difference(f"kernel.files_sha256.{name}", digest, None, "it was in the run directory")
            shutil.copyfile(source, inside(clone.root, run / name))
    wheels = workspace.build / "wheels"
    if wheels.is_dir():  # they need not be fetched again
        inside(clone.root, clone.build / "wheels").parent.mkdir(exist_ok=True)
        (clone.build / "wheels").symlink_to(wheels)
    # What changed the build beside kernel.yaml.
    flags = kernel.get("built_with") or {}
    arguments += ["--resume"] if flags.get("resume") else []
    mode = {str(flags["mode"]).upper(): "1"} if flags.get("mode") else {}
    run_podium(clone.root, arguments, {"KAGGLE_USERNAME": owner, **mode})
    manifest = json.loads((clone.build / "kernels" / slug / "MANIFEST.json").read_text(encoding="utf-8"))
    return _compare(kernel, manifest)


def _compare(recorded: Record, built: Record) -> Difference | None:
    """The first file that is another: notebook and metadata, then the datasets'."""
    if built["bundle_sha256"] == recorded["bundle_sha256"]:
        return None
    here = _digests(built)
    for name, digest in _digests(recorded).items():
        if here.get(name) != digest:
            return Difference(f"kernel.{name}", digest, here.get(name))
    return Difference("kernel.bundle_sha256", recorded["bundle_sha256"], built["bundle_sha256"])


def _digests(manifest: Record) -> Mapping[str, str]:
    digests = {f"datasets.{d['slug']}.{name}": sha for d in manifest["datasets"] for name, sha in d["files"].items()}
    # A notebook holds the digests of its datasets, hence they come first.
    return digests | {f"files.{name}": digest for name, digest in manifest["files"].items()}
