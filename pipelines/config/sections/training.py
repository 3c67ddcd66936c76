"""The training loop's settings."""

from dataclasses import dataclass
from typing import ClassVar

from components.memory.byte_sizes import parse_bytes
from components.memory.plans import parse_plan
from pipelines.config.checks import above, at_least, one_of, share, shown
from pipelines.config.sections.section import Section

PRECISIONS = ("no", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Loop(Section):
    """The one training loop."""

    name: ClassVar[str] = "loop"

    num_steps: int | None = None
    """Optimizer steps of the run; give this or num_epochs."""
    num_epochs: int | None = None
    """Passes over the training rows; give this or num_steps."""
    batch_size: int = 32
    """Examples of one micro-step, over all processes together."""
    tokens_per_batch: int | None = None
    """Most tokens of one micro-step, padding included: long texts make smaller batches; null counts examples alone."""
    eval_batch_size: int = 128
    """Examples of one batch of validation and prediction, over all processes together."""
    gradient_accumulation_steps: int = 1
    """Micro-steps whose gradients make one step; what is left at the end of an epoch is used."""
    max_grad_norm: float | None = 1.0
    """Norm to which the gradient of all weights together is scaled down; null leaves it."""
    mixed_precision: str = "no"
    """no, bf16, or fp16 with a loss scaler: T5 overflows in fp16, and Kaggle's T4 has no bf16."""
    eval_precision: str = "no"
    """no, bf16 or fp16: the type of matrix products in validation and prediction; fp16 is fast on Kaggle's T4."""
    activation_checkpointing: str = "none"
    """What layers keep for the backward pass: none, recompute, recompute/2, segments, rebuild, ... (docs/memory.md)."""
    memory_budget: str | None = None
    """12GiB, or auto for what the device has free: chooses the fastest activation plan that fits; null chooses none."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    z_loss: float = 0.0
    """Weight of the squared log-normaliser of text's softmax, which keeps logits small; 1e-4 in T5X and PaLM."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights that is scored and kept; null keeps none."""
    eval_every_steps: int | None = None
    """Steps between validations; null validates at the end of each epoch. The last step always does."""
    early_stopping_patience: int | None = None
    """Validations without a better score after which training ends; null never ends early."""
    num_best_checkpoints: int = 1
    """Checkpoints kept by validation score; the first of them predicts."""
    checkpoint_every_steps: int | None = 500
    """Steps between resume points; every validation writes one as well, with null nothing else does."""
    log_every_steps: int = 20
    """Steps between two values of a training curve."""
    bucket_batches: int = 50
    """Batches are cut from windows of so many batches sorted by length, which saves padding; 0 sorts nothing."""
    pad_to_multiple_of: int = 1
    """Round padded lengths above 64 up to a multiple of this; 8 suits a GPU's matrix units."""
    num_threads: int = 0
    """CPU threads of torch; 0 leaves torch's own number."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        if (self.num_steps is None) == (self.num_epochs is None):
            given = f"num_steps: {shown(self.num_steps)} with num_epochs: {shown(self.num_epochs)}"
            raise ValueError(f"{given}; needs a number for exactly one of them and null for the other")
        at_least(self, 1, "num_steps", "num_epochs", "batch_size", "eval_batch_size", "gradient_accumulation_steps")
        at_least(self, 1, "eval_every_steps", "early_stopping_patience", "num_best_checkpoints")
        at_least(self, 1, "checkpoint_every_steps", "log_every_steps", "pad_to_multiple_of", "tokens_per_batch")
        at_least(self, 0, "bucket_batches", "num_threads", "z_loss")
        above(self, 0, "max_grad_norm", "ema_decay")
        share(self, "label_smoothing", "ema_decay")
        _check_plan(self.activation_checkpointing)
        self._check_budget()
        one_of(self, "mixed_precision", PRECISIONS)
        one_of(self, "eval_precision", PRECISIONS)
        one_of(self, "device", DEVICES)
        if self.mixed_precision == "fp16" and self.device == "cpu":
            raise ValueError("mixed_precision: 'fp16' needs a GPU and device is cpu; use no or bf16")

    def _check_budget(self) -> None:
        budget, plan = self.memory_budget, self.activation_checkpointing
        if budget is None:
            return
        if plan != "none":
            raise ValueError(
                f"memory_budget: {budget!r} with activation_checkpointing: {plan!r}; one chooses the other"
            )
        if budget != "auto":
            try:
                parse_bytes(budget)
            except ValueError as error:
                raise ValueError(f"memory_budget: {error}; or auto, or null") from error


def _check_plan(text: str) -> None:
    try:
        parse_plan(text)
    except ValueError as error:
        raise ValueError(f"activation_checkpointing: {error}") from error
