"""Where names become objects: the tables that give each choice of an experiment its builder.

A builder takes what only the run knows by position, and every field of its config class as a keyword-only argument
without a default; so a default stands in the config class alone, and a field that nobody reads cannot hide. Fold
schemes are data to `components.data.folds.assign_folds`, and trackers are opened outside: what runs in a kernel must
not reach MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import SECTIONS, Experiment
from pipelines.config.sections import bert, optimizer, pixels, schedule, sentence, t5, tables, xcit
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import Section
from pipelines.config.sections.sentence import SentenceBert, SentenceBertPretrained
from pipelines.config.sections.t5 import T5FromScratch, T5Pretrained
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from components.baselines.pixels import PixelBaseline
    from components.optim.schedules import Schedule
    from components.tables.model import TabularBaseline

HEAD_MODULES = ("lm_head", "head")
"""What a model calls its head, where that is a module of its own."""


@dataclass(frozen=True)
class Choice:
    """One row of a table: the fields of a choice, and what makes the object of them."""

    config_class: type[Section]
    builder: Callable[..., Any]


def build_model(
    experiment: Experiment,
    *,
    num_classes: int | None,
    task: str,
    vocab_size: int | None = None,
    weights: Path | None = None,
    kept_ids: Sequence[int] | None = None,
) -> nn.Module:
    """The experiment's neural model, with random or published weights, on the CPU.

    `num_classes` is the width of a classifier's logits, 1 for regression, None for text; the rest as in ModelContext.
    Raises ConfigError where the head does not suit the task or the weights cannot be loaded.
    """
    check_head(experiment, task)
    context = ModelContext(
        task,
        num_classes,
        experiment.seed,
        label_smoothing=experiment.loop.label_smoothing,
        z_loss=experiment.loop.z_loss,
        vocab_size=vocab_size,
        weights=weights,
        kept_ids=kept_ids,
        in_chans=getattr(experiment.data, "in_chans", None),
    )
    try:
        model: nn.Module = _build(MODELS, experiment.model, context)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{experiment.name}: model.name: {experiment.model.name}: {error}") from error
    return model


def check_head(experiment: Experiment, task: str) -> None:
    """Raise ConfigError where the model's head does not suit the task."""
    if isinstance(experiment.model, SentenceBert | SentenceBertPretrained):
        return
    if not isinstance(experiment.model, T5FromScratch | T5Pretrained):
        if task == "text_to_text":
            name = experiment.model.name
            raise ConfigError(
                f"model.name: {name!r} writes no text, which {experiment.competition} asks for; needs a T5"
            )
        return
    head, wanted = experiment.model.head, "seq2seq" if task == "text_to_text" else "classifier"
    if head != wanted:
        raise ConfigError(f"model.head: {head!r} does not suit {experiment.competition}, a {task} task; needs {wanted}")


def build_baseline(experiment: Experiment, task: str, num_classes: int | None) -> TabularBaseline | PixelBaseline:
    """The experiment's scikit-learn model, not yet fitted."""
    context = ModelContext(task, num_classes, experiment.seed)
    baseline: TabularBaseline | PixelBaseline = _build(MODELS, experiment.model, context)
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


def _build(table: Mapping[str, Choice], section: Section, context: object) -> Any:  # noqa: ANN401
    return table[section.name].builder(context, **asdict(section))


def _table(kind: str, builders: Mapping[str, Callable[..., Any]]) -> dict[str, Choice]:
    return {name: Choice(SECTIONS[kind][name], builder) for name, builder in builders.items()}


MODELS = _table(
    "model",
    {
        "t5_from_scratch": t5.build_t5_from_scratch,
        "t5_pretrained": t5.build_t5_pretrained,
        "xcit": xcit.build_xcit,
        "sentence_bert": sentence.build_sentence_bert,
        "sentence_bert_pretrained": sentence.build_sentence_bert_pretrained,
        "bert": bert.build_bert,
        "linear_baseline": tables.build_linear_baseline,
        "pixel_baseline": pixels.build_pixel_baseline,
    },
)
OPTIMIZERS = _table("optimizer", {"adafactor": optimizer.build_adafactor, "adamw": optimizer.build_adamw})
SCHEDULES = _table(
    "schedule",
    {
        "constant": schedule.build_constant,
        "linear": schedule.build_linear,
        "cosine": schedule.build_cosine,
        "inverse_sqrt": schedule.build_inverse_sqrt,
    },
)
