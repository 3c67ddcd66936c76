"""The optimizers an experiment can name, and what builds them over parameter groups that are made already.

`layer_decay` and `head_lr` are those of `pipelines.config.build.build_optimizer`, which makes the groups.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.config.checks import above, at_least, share, shown
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Adafactor(Section):
    """Adafactor (arXiv:1804.04235): second moments by row and column, so that its state is nearly free."""

    name: ClassVar[str] = "adafactor"

    lr: float | None = 1e-3
    """Peak learning rate; null with relative_step, which sets its own."""
    eps1: float = 1e-30
    """Added to every squared gradient."""
    eps2: float = 1e-3
    """Least root mean square of a tensor that scale_parameter multiplies by."""
    clip_threshold: float = 1.0
    """Root mean square above which a tensor's update is scaled down."""
    decay_rate: float = -0.8
    """Exponent c of the second moments' decay 1 - step^c; negative, as in transformers."""
    beta1: float | None = None
    """Momentum of the updates; null keeps none, and saves a copy of the weights."""
    weight_decay: float = 0.0
    """Share of the weights, times the learning rate, that is taken off at each step."""
    scale_parameter: bool = True
    """Multiply the learning rate by each tensor's root mean square: then 1e-3 is small and 3e-2 is usual."""
    relative_step: bool = False
    """The paper's own rate, min(1e-2, 1 / sqrt(step)), in place of lr."""
    warmup_init: bool = False
    """With relative_step: start from 1e-6 * step."""
    min_dim_size_to_factor: int = 0
    """Matrices with a side below this keep their whole second moment, as T5's position biases in mesh-tensorflow."""
    stochastic_rounding: bool = False
    """Round bfloat16 weights up or down by chance, so that small updates are not lost; on average exact."""
    layer_decay: float | None = None
    """Factor on the rate from each layer to the one below it, embeddings last; null gives all layers one rate."""
    head_lr: float | None = None
    """Peak rate of the head, where it is a matrix of its own; null gives it the body's."""

    def __post_init__(self) -> None:
        at_least(self, 0, "min_dim_size_to_factor")
        above(self, 0, "lr", "eps1", "eps2", "clip_threshold")
        share(self, "beta1")
        at_least(self, 0, "weight_decay")
        if not -10 <= self.decay_rate < 0:
            raise ValueError(
                f"decay_rate: {self.decay_rate} is out of range; needs a negative number, -0.8 in the paper"
            )
        if self.relative_step == (self.lr is not None):
            cure = "set lr: null" if self.relative_step else "give a number, or relative_step: true"
            raise ValueError(f"lr: {shown(self.lr)} with relative_step: {shown(self.relative_step)}; {cure}")
        _check_groups(self)
        if self.relative_step and (self.layer_decay, self.head_lr) != (None, None):
            raise ValueError(
                f"relative_step: true with layer_decay: {shown(self.layer_decay)} and head_lr: {shown(self.head_lr)}, "
                "which scale an lr of yours; needs false, or null for both"
            )
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init: true changes relative_step's rate only; needs relative_step: true")


@dataclass(frozen=True, kw_only=True)
class AdamW(Section):
    """Adam with decoupled weight decay (arXiv:1711.05101); its state is twice the weights."""

    name: ClassVar[str] = "adamw"

    lr: float = 1e-4
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the mean of the gradients."""
    beta2: float = 0.999
    """Decay of the mean of their squares."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Share of the weights, times the learning rate, that is taken off at each step."""
    layer_decay: float | None = None
    """Factor on the rate from each layer to the one below it, embeddings last; null gives all layers one rate."""
    head_lr: float | None = None
    """Peak rate of the head, where it is a matrix of its own; null gives it the body's."""

    def __post_init__(self) -> None:
        above(self, 0, "lr", "eps")
        share(self, "beta1", "beta2")
        at_least(self, 0, "weight_decay")
        _check_groups(self)


def _check_groups(section: Adafactor | AdamW) -> None:
    above(section, 0, "layer_decay", "head_lr")
    if section.layer_decay is not None and section.layer_decay > 1:
        raise ValueError(f"layer_decay: {section.layer_decay} is out of range; needs at most 1, 0.8 is usual")


def build_adafactor(
    params: Iterable[Mapping[str, Any]],
    *,
    lr: float | None,
    eps1: float,
    eps2: float,
    clip_threshold: float,
    decay_rate: float,
    beta1: float | None,
    weight_decay: float,
    scale_parameter: bool,
    relative_step: bool,
    warmup_init: bool,
    min_dim_size_to_factor: int,
    stochastic_rounding: bool,
    layer_decay: float | None,
    head_lr: float | None,
) -> "Optimizer":
    from components.optim.adafactor.optimizer import Adafactor

    return Adafactor(
        params,
        lr=lr,
        eps=(eps1, eps2),
        clip_threshold=clip_threshold,
        decay_rate=decay_rate,
        beta1=beta1,
        weight_decay=weight_decay,
        scale_parameter=scale_parameter,
        relative_step=relative_step,
        warmup_init=warmup_init,
        min_dim_size_to_factor=min_dim_size_to_factor,
        stochastic_rounding=stochastic_rounding,
    )


def build_adamw(
    params: Iterable[dict[str, Any]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    layer_decay: float | None,
    head_lr: float | None,
) -> "Optimizer":
    from torch.optim import AdamW

    # torch's default on a CPU walks over the weights several times; the fused step once
    return AdamW(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
