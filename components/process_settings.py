"""The settings of the whole process that trainings and predictions want, in one place.

Whoever starts a run applies them, before torch's first product: models, optimizers and the loop leave the process as
it is.
"""

import torch

from components.memory.host_memory import keep_freed_memory


def tune_process(*, num_threads: int = 0) -> None:
    """Set this process up for training or prediction, for the rest of its life.

    `num_threads` are torch's on a CPU; 0 leaves their number as it is. Subnormal numbers count as zero: a row that no
    batch touches has subnormal averages after 700 steps, and then takes AdamW twelve times as long on Intel's
    processors. What a step frees stays with the process for the next one, see `keep_freed_memory`.
    """
    # torch's worker threads inherit this when they start, so it comes first.
    torch.set_flush_denormal(True)
    if num_threads:
        torch.set_num_threads(num_threads)
    keep_freed_memory()
