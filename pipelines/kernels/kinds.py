"""What a kernel does, and what it runs on."""

from enum import StrEnum


class KernelMode(StrEnum):
    """predict: a finished run's submission; train: an experiment trained on Kaggle's machine."""

    PREDICT = "predict"
    TRAIN = "train"


class Machine(StrEnum):
    """A kind of machine: Kaggle counts sessions and hours by it."""

    CPU = "cpu"
    GPU = "gpu"
    TPU = "tpu"
