"""Optimizers from an experiment's fields, over parameter groups that are made already.

`layer_decay` and `head_lr` are those of `pipelines.build.build_optimizer`, which makes the groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer


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
) -> Optimizer:
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
) -> Optimizer:
    from torch.optim import AdamW

    # torch's default on a CPU walks over the weights several times; the fused step once
    return AdamW(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
