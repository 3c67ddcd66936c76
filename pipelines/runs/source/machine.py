"""The machine and the libraries that a run is made with: what equal bits depend on."""

import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.runs.record import Machine

RECORDED_LIBRARIES = (
    "torch", "torchvision", "timm", "transformers", "tokenizers", "accelerate", "safetensors", "sentencepiece",
    "scikit-learn", "numpy", "pandas", "pyarrow", "scipy", "omegaconf", "mlflow", "kaggle",
    # Adafactor steps in other code without it.
    "numba",
)  # fmt: skip


def describe_machine() -> Machine:
    """Processor, memory, GPUs and threads."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Machine(
        system=platform.platform(),
        processor=_processor_name(),
        cores=os.cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=tuple(gpus),
        torch_threads=torch.get_num_threads(),
    )


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def list_versions(also: Iterable[str] = ()) -> dict[str, str]:
    """The versions of python and of the libraries that touch numbers, and of others by name."""
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys((*RECORDED_LIBRARIES, *also)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def peak_memory_bytes() -> int:
    """The most memory this process ever held, of the GPU's where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())))
    import resource

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kibibytes) * (1 if sys.platform == "darwin" else 1024)
