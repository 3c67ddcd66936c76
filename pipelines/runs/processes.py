"""The processes of one training: torchrun starts several, everything else is one."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState

from components.process_settings import tune_process
from pipelines.config.schema import Experiment

T = TypeVar("T")

# The main process predicts OOF and test alone while the others wait; torch's own patience is ten minutes.
PATIENCE = timedelta(hours=12)


def tune(experiment: Experiment) -> None:
    """Set this process up for a run of the experiment, before it makes or loads a model.

    Only for models that are trained step by step: a baseline's results are those of its library's own settings.
    """
    if experiment.training is not None:
        tune_process(num_threads=experiment.training.num_threads)


def join_processes(experiment: Experiment) -> None:
    """Set this process up for a training, and meet the others of it, over nccl on GPUs and gloo on CPUs."""
    tune(experiment)
    if experiment.training is not None:
        is_several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        PartialState(cpu=is_on_cpu(experiment.training.device), **({"timeout": PATIENCE} if is_several else {}))


def is_on_cpu(device: str) -> bool:
    """Whether `training.device` comes to the CPU here; accelerate must be told, or its processes stay apart."""
    return device == "cpu" or not torch.cuda.is_available()


def is_main_process() -> bool:
    """Whether this process writes files and speaks; known without importing torch."""
    return os.environ.get("RANK", "0") == "0"


def decide_together(decide: Callable[[], T]) -> T:
    """The main process decides, every process gets its answer; an error of the decision is raised by all."""
    answer: list[T | Exception | None] = [None]
    if is_main_process():
        try:
            answer = [decide()]
        except Exception as error:
            answer = [error]
    if torch.distributed.is_initialized():
        # accelerate's function of the same name does nothing for several processes on CPUs.
        torch.distributed.broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]
