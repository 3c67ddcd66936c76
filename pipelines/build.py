"""Where names become objects: the tables that give each choice of an experiment its builder.

A builder takes what only the run knows by position, and every field of its config class as a keyword-only argument
without a default; so a default stands in the config class alone, and a field that nobody reads cannot hide. Fold
schemes are data to `components.data.folds.assign_folds`, and trackers are opened outside: what runs in a kernel must
not reach MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import SECTIONS, Experiment
from pipelines.config.sections.model import T5FromScratch, T5Pretrained
from pipelines.config.sections.section import Section
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from components.optim.schedules import Schedule
    from components.tabular_baseline import TabularBaseline

HEAD_MODULES = ("lm_head",)
"""What a model calls its head, where that is a module of its own."""

CLASSIFIER_LOSSES = {"multilabel": "binary_cross_entropy", "regression": "mse"}
"""Task -> loss of a classifier's head; the tasks with classes have cross-entropy."""


@dataclass(frozen=True)
class Choice:
    """One row of a table: the fields of a choice, and what makes the object of them."""

    config_class: type[Section]
    builder: Callable[..., Any]


@dataclass(frozen=True)
class ModelContext:
    """What a model must know of the run.

    `num_classes` is None for text, `seed` is for models without torch's, and `weights` is the checkpoint that the run
    itself holds to start from, in place of the one that the experiment names. Rows `kept_ids` of published weights are
    those of a trimmed vocabulary.
    """

    task: str
    num_classes: int | None
    vocab_size: int | None
    label_smoothing: float
    z_loss: float
    seed: int
    weights: Path | None = None
    kept_ids: Sequence[int] | None = None


def build_model(
    experiment: Experiment,
    *,
    vocab_size: int,
    num_classes: int | None,
    task: str,
    weights: Path | None = None,
    kept_ids: Sequence[int] | None = None,
) -> nn.Module:
    """The experiment's neural model, with random or published weights, on the CPU.

    `num_classes` is the width of a classifier's logits, 1 for regression, None for text. Raises ConfigError where the
    head does not suit the task or the weights cannot be loaded.
    """
    assert isinstance(experiment.model, T5FromScratch | T5Pretrained)
    head, wanted = experiment.model.head, "seq2seq" if task == "text_to_text" else "classifier"
    if head != wanted:
        raise ConfigError(f"model.head: {head!r} does not suit {experiment.competition}, a {task} task; needs {wanted}")
    context = ModelContext(
        task,
        num_classes,
        vocab_size,
        experiment.loop.label_smoothing,
        experiment.loop.z_loss,
        experiment.seed,
        weights,
        kept_ids,
    )
    try:
        model: nn.Module = _build(MODELS, experiment.model, context)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{experiment.name}: model.name: {experiment.model.name}: {error}") from error
    return model


def build_baseline(experiment: Experiment, task: str, num_classes: int | None) -> TabularBaseline:
    """The experiment's scikit-learn model, not yet fitted."""
    context = ModelContext(task, num_classes, vocab_size=None, label_smoothing=0.0, z_loss=0.0, seed=experiment.seed)
    baseline: TabularBaseline = _build(MODELS, experiment.model, context)
    return baseline


def build_optimizer(experiment: Experiment, model: nn.Module) -> Optimizer:
    """The optimizer of the model's trainable parameters; norms and biases are in groups without weight decay.

    Raises ConfigError where the model has no head of its own, or no layers, for the rates that are asked of them.
    """
    from components.optim.param_groups import build_param_groups

    section = experiment.optimizer
    assert section is not None
    head = [name for name in HEAD_MODULES if hasattr(model, name)]
    if section.head_lr is not None and not head:
        raise ConfigError(f"optimizer.head_lr: {section.head_lr}, but the weights' head is the embedding; needs null")
    groups = build_param_groups(
        model,
        weight_decay=section.weight_decay,
        lr=section.lr,
        head_lr=section.head_lr,
        # A group of its own only where a rate asks for it: groups are part of a resume point.
        head_prefixes=head if section.head_lr is not None or section.layer_decay is not None else (),
        layer_decay=section.layer_decay,
    )
    optimizer: Optimizer = _build(OPTIMIZERS, section, groups)
    return optimizer


def build_schedule(experiment: Experiment, *, num_steps: int) -> Schedule:
    """Step -> factor of the peak rate, over a run of num_steps."""
    assert experiment.schedule is not None
    schedule: Schedule = _build(SCHEDULES, experiment.schedule, num_steps)
    return schedule


def build_t5_from_scratch(
    context: ModelContext,
    *,
    head: str,
    d_model: int,
    d_kv: int,
    d_ff: int,
    num_layers: int,
    num_decoder_layers: int,
    num_heads: int,
    feed_forward: str,
    dropout: float,
    tie_embeddings: bool,
    freeze_embeddings: bool,
    num_beams: int,
    length_penalty: float,
    target_pieces_only: bool,
) -> nn.Module:
    """What generation alone needs (`num_beams` and what follows) it reads from the section."""
    from components.models import t5
    from components.optim.param_groups import freeze_embeddings as freeze

    assert context.vocab_size is not None
    architecture = t5.T5Architecture(
        vocab_size=context.vocab_size,
        d_model=d_model,
        d_kv=d_kv,
        d_ff=d_ff,
        num_layers=num_layers,
        num_decoder_layers=num_decoder_layers,
        num_heads=num_heads,
        dropout=dropout,
        feed_forward=feed_forward,
        tie_embeddings=tie_embeddings,
    )
    model = t5.create_t5(
        architecture,
        head=head,
        num_classes=context.num_classes,
        loss=CLASSIFIER_LOSSES.get(context.task, "cross_entropy"),
        label_smoothing=context.label_smoothing,
        z_loss=context.z_loss,
    )
    if freeze_embeddings:
        freeze(model)
    return model


def build_t5_pretrained(
    context: ModelContext,
    *,
    checkpoint: str,
    head: str,
    dropout: float,
    freeze_embeddings: bool,
    num_beams: int,
    length_penalty: float,
    target_pieces_only: bool,
) -> nn.Module:
    """What generation alone needs (`num_beams` and what follows) it reads from the section."""
    from components.models import t5
    from components.models.t5_trimming import trim_t5
    from components.optim.param_groups import freeze_embeddings as freeze

    model = t5.load_t5(
        context.weights or checkpoint,
        head=head,
        num_classes=context.num_classes,
        dropout=dropout,
        loss=CLASSIFIER_LOSSES.get(context.task, "cross_entropy"),
        label_smoothing=context.label_smoothing,
        z_loss=context.z_loss,
    )
    if context.kept_ids is not None and context.weights is None:
        model = trim_t5(model, context.kept_ids)
    if freeze_embeddings:
        freeze(model)
    return model


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
    """The last two are those of `build_optimizer`, which makes the groups."""
    from components.optim.adafactor import Adafactor

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
    """The last two are those of `build_optimizer`, which makes the groups."""
    from torch.optim import AdamW

    # torch's default on a CPU walks over the weights several times; the fused step once
    return AdamW(params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)


def build_constant(num_steps: int, *, num_warmup_steps: int) -> Schedule:
    from components.optim import schedules

    return schedules.build_constant(num_steps=num_steps, num_warmup_steps=num_warmup_steps)


def build_linear(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> Schedule:
    from components.optim import schedules

    return schedules.build_linear(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_cosine(num_steps: int, *, num_warmup_steps: int, final_factor: float) -> Schedule:
    from components.optim import schedules

    return schedules.build_cosine(num_steps=num_steps, num_warmup_steps=num_warmup_steps, final_factor=final_factor)


def build_inverse_sqrt(num_steps: int, *, num_warmup_steps: int, time_scale: int) -> Schedule:
    from components.optim import schedules

    return schedules.build_inverse_sqrt(num_steps=num_steps, num_warmup_steps=num_warmup_steps, time_scale=time_scale)


def build_linear_baseline(
    context: ModelContext, *, estimator: str, max_features: int, char_ngrams: bool, strength: float
) -> TabularBaseline:
    from components.tabular_baseline import TabularBaseline

    return TabularBaseline(
        task=context.task,
        num_classes=context.num_classes,
        estimator=estimator,
        max_features=max_features,
        char_ngrams=char_ngrams,
        strength=strength,
        seed=context.seed,
    )


def _build(table: Mapping[str, Choice], section: Section, context: object) -> Any:  # noqa: ANN401
    return table[section.name].builder(context, **asdict(section))


def _table(kind: str, builders: Mapping[str, Callable[..., Any]]) -> dict[str, Choice]:
    return {name: Choice(SECTIONS[kind][name], builder) for name, builder in builders.items()}


MODELS = _table(
    "model",
    {
        "t5_from_scratch": build_t5_from_scratch,
        "t5_pretrained": build_t5_pretrained,
        "linear_baseline": build_linear_baseline,
    },
)
OPTIMIZERS = _table("optimizer", {"adafactor": build_adafactor, "adamw": build_adamw})
SCHEDULES = _table(
    "schedule",
    {
        "constant": build_constant,
        "linear": build_linear,
        "cosine": build_cosine,
        "inverse_sqrt": build_inverse_sqrt,
    },
)
