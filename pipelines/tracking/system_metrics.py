"""How busy the machine is, under the keys that MLflow's System metrics tab shows.

MLflow's own monitor would be a second writer to the database beside the buffer, and stops at its first error.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import psutil

SYSTEM_PREFIX = "system/"
SYSTEM_SECONDS = 30.0


class SystemSampler:
    """Reads CPU, memory, disk and GPU figures, at most once every `seconds`; a reading costs about 1 ms."""

    def __init__(self, *, first_step: int = 0, seconds: float = SYSTEM_SECONDS) -> None:
        self._step = first_step
        self._seconds = seconds
        self._due = time.monotonic() + seconds
        self._process = psutil.Process()
        self._read_gpus = _build_gpu_reader()
        psutil.cpu_percent()  # percentages are of the time since the last call

    def log_if_due(self, log_metrics: Callable[[dict[str, float], int], None]) -> None:
        """Take a reading and hand it on with its number, if the last one is old enough."""
        if time.monotonic() < self._due:
            return
        log_metrics({SYSTEM_PREFIX + key: value for key, value in self.read().items()}, self._step)
        self._step += 1
        self._due = time.monotonic() + self._seconds

    def read(self) -> dict[str, float]:
        """The figures of this moment: percent and megabytes (10^6 bytes)."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(".")
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
            **self._read_gpus(),
        }


def _build_gpu_reader() -> Callable[[], dict[str, float]]:
    """A function that reads all NVIDIA GPUs; it reads none where nvidia-ml-py, a driver or a GPU is missing."""
    try:
        pynvml: Any = import_module("pynvml")  # of nvidia-ml-py, which only machines with a GPU need
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # NVMLError and ImportError have no other ancestor in common
        return dict

    def read() -> dict[str, float]:
        values = {}
        for index, handle in enumerate(handles):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            values[f"gpu_{index}_memory_usage_megabytes"] = memory.used / 1e6
            values[f"gpu_{index}_memory_usage_percentage"] = 100 * memory.used / memory.total
            values[f"gpu_{index}_utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            values[f"gpu_{index}_power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3
        return values

    return read
