"""The generated notebook (what it is, the source unpacked, one call) and kernel-metadata.json, every field in it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.addresses import KernelName
from pipelines.kaggle.metadata import KernelMetadata
from pipelines.kernels.kernel_file import KernelFile
from pipelines.kernels.kinds import Machine

# The one place that knows where Kaggle keeps a kernel's files.
UNPACK = '''\
import base64, hashlib, io, lzma, os, sys, tempfile, zipfile
from pathlib import Path

KAGGLE = Path(os.environ.get("PODIUM_KAGGLE", "/kaggle"))  # a rehearsal may lay it out elsewhere


def unpack(packed, sha256):
    """Put the source that this notebook was generated with onto the path, outside the folder whose files are kept."""
    content = lzma.decompress(packed)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RuntimeError("the source is damaged or of another version; generate the notebook again")
    folder = Path(tempfile.mkdtemp(prefix="podium-"))
    zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    sys.path.insert(0, str(folder))
    return folder


'''
EMBEDDED = 'BUNDLE = unpack(base64.b64decode("{text}"), "{sha256}")'
IN_DATASET = """\
packed = sorted((KAGGLE / "input").glob("**/{slug}/{name}"))
if not packed:
    raise FileNotFoundError("{slug}/{name} is not attached; add the dataset to the kernel's sources")
BUNDLE = unpack(packed[0].read_bytes(), "{sha256}")"""
RUN = """\
from pipelines.kernels.session import run_session

run_session(BUNDLE, inputs=KAGGLE / "input", working=KAGGLE / "working")"""


def render_notebook(words: str, facts: Mapping[str, str], unpacking: str) -> str:
    """The notebook as JSON; `facts` become a table under the words."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    cells = [
        {"cell_type": "markdown", "id": "words", "metadata": {}, "source": f"{words}\n\n| | |\n|---|---|\n{rows}"},
        # Folded on Kaggle and in JupyterLab: its last line is long.
        _code("unpack", UNPACK + unpacking, {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}),
        _code("run", RUN, {}),
    ]
    metadata = {
        # Kaggle's papermill refuses a notebook without it.
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _code(cell_id: str, source: str, metadata: Mapping[str, object]) -> dict[str, Any]:
    return {
        "cell_type": "code", "execution_count": None, "id": cell_id, "metadata": dict(metadata), "outputs": [],
        "source": source,
    }  # fmt: skip


def render_metadata(
    file: KernelFile,
    *,
    kernel: KernelName,
    code_file: str,
    datasets: Sequence[KernelName],
    competitions: Sequence[str],
    kernels: Sequence[KernelName],
) -> KernelMetadata:
    """kernel-metadata.json: nothing is left to a default of the client, of which one (internet) is not what it says."""
    return KernelMetadata(
        id=kernel,
        id_no=None,
        title=file.title,
        code_file=code_file,
        language="python",
        kernel_type="notebook",
        is_private=file.private,
        enable_gpu=file.kind is Machine.GPU,
        enable_tpu=file.kind is Machine.TPU,
        enable_internet=file.internet,
        machine_shape=None if file.kind is Machine.CPU else file.accelerator,
        dataset_sources=(*map(str, datasets), *file.dataset_sources),
        competition_sources=(*competitions, *file.competition_sources),
        kernel_sources=(*map(str, kernels), *file.kernel_sources),
        model_sources=tuple(file.model_sources),
        keywords=tuple(file.keywords),
        docker_image=file.docker_image,
        docker_image_pinning_type=file.docker_image_pinning_type,
    )
