"""Kernels as a build leaves them, of a few cells and a few bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipelines.workspace import Workspace


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_notebook(*cells: str) -> str:
    """A notebook of code cells with a kernelspec."""
    written = [
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": cell,
            "id": f"c{number}",
        }
        for number, cell in enumerate(cells)
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": written, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})


def make_dataset(workspace: Workspace, name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """build/datasets/<slug>/ and its lines in a manifest."""
    folder = workspace.build / "datasets" / name.split("/")[-1]
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    metadata = {"id": name, "title": name.split("/")[-1], "licenses": [{"name": "CC0-1.0"}], "isPrivate": True}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    digests = {file: sha256(content) for file, content in files.items()}
    return {"slug": name.split("/")[-1], "kind": "weights", "files": digests, "paths": {}}


def write_kernel_file(workspace: Workspace, slug: str, **fields: Any) -> Path:
    """kernels/<slug>/kernel.yaml, from which the kernel might have been built."""
    path = workspace.kernels / slug / "kernel.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"title": slug.replace("-", " "), "mode": "predict", "experiment": "first_try", "memory_gb": 29}
    path.write_text(json.dumps(content | fields), encoding="utf-8")
    return path


def make_kernel(
    workspace: Workspace,
    *cells: str,
    slug: str = "tiny-kernel",
    owner: str = "alice",
    datasets: dict[str, dict[str, bytes]] | None = None,
    manifest: dict[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """build/kernels/<slug>/ with its manifest, and its kernel.yaml; `metadata`, `manifest` replace keys of those."""
    folder = workspace.build / "kernels" / slug
    folder.mkdir(parents=True, exist_ok=True)
    described = [make_dataset(workspace, name, files) for name, files in (datasets or {}).items()]
    notebook = make_notebook(*(cells or ("open('submission.csv', 'w').write('id,label\\n1,0\\n')",)))
    content = {
        "id": f"{owner}/{slug}",
        "id_no": None,
        "title": slug.replace("-", " "),
        "code_file": f"{slug}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": None,
        "dataset_sources": list(datasets or {}),
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
        "docker_image": None,
        "docker_image_pinning_type": "original",
    }
    write_kernel_file(workspace, slug, accelerator=metadata.get("machine_shape", "none"))
    files = {f"{slug}.ipynb": notebook, "kernel-metadata.json": json.dumps(content | metadata, indent=1)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    described_files = {name: sha256(text.encode()) for name, text in files.items()}
    content = {
        "format": 1,
        "kernel": f"{owner}/{slug}",
        "mode": "predict",
        "competition": "tiny_task",
        "kaggle_slug": "tiny-task",
        "experiment": "first_try",
        "run": "20261121-100000-bbbb",
        "commit": None,
        "config_sha256": "1" * 64,
        "folds_sha256": "2" * 64,
        "source_sha256": "0" * 64,
        "bundle_sha256": sha256(json.dumps([described_files, described]).encode()),
        "files": described_files,
        "datasets": described,
    }
    (folder / "MANIFEST.json").write_text(json.dumps(content | (manifest or {}), indent=1), encoding="utf-8")
    return folder
