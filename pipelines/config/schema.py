"""What an experiment is: a few words of its own and one choice per section, all checked together.

`SECTIONS` is the one table of what a section's `name` may be; `config.build` gives each of these classes its builder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.memory.plans import EmbeddingsPlan, parse_plan
from pipelines.config.checks import at_least, at_most
from pipelines.config.sections.bert import Bert, Segments
from pipelines.config.sections.folds import Group, Holdout, KFold, Stratified, StratifiedGroup, Time
from pipelines.config.sections.optimizer import Adafactor, AdamW
from pipelines.config.sections.pixels import PixelBaseline, Pixels
from pipelines.config.sections.schedule import Constant, Cosine, InverseSqrt, Linear
from pipelines.config.sections.section import Section, starts_from_run
from pipelines.config.sections.sentence import Articles, SentenceBert, SentenceBertPretrained
from pipelines.config.sections.t5 import T5FromScratch, T5Pretrained, Text
from pipelines.config.sections.tables import LinearBaseline, Table
from pipelines.config.sections.tracking import JsonLines, MLflow, NoTracking
from pipelines.config.sections.training import Loop
from pipelines.config.sections.xcit import Images, XCiT

Values = dict[str, Any]

LARGEST_SEED = 2**32 - 1
"""NumPy's draws of rows and scikit-learn take no larger one."""

SECTIONS: dict[str, dict[str, type[Section]]] = {
    "model": {
        "t5_from_scratch": T5FromScratch,
        "t5_pretrained": T5Pretrained,
        "xcit": XCiT,
        "sentence_bert": SentenceBert,
        "sentence_bert_pretrained": SentenceBertPretrained,
        "bert": Bert,
        "linear_baseline": LinearBaseline,
        "pixel_baseline": PixelBaseline,
    },
    "data": {
        "text": Text,
        "images": Images,
        "articles": Articles,
        "segments": Segments,
        "table": Table,
        "pixels": Pixels,
    },
    "optimizer": {"adafactor": Adafactor, "adamw": AdamW},
    "schedule": {"constant": Constant, "linear": Linear, "cosine": Cosine, "inverse_sqrt": InverseSqrt},
    "training": {"loop": Loop},
    "folds": {
        "holdout": Holdout,
        "kfold": KFold,
        "stratified": Stratified,
        "group": Group,
        "stratified_group": StratifiedGroup,
        "time": Time,
    },
    "tracking": {"mlflow": MLflow, "jsonl": JsonLines, "none": NoTracking},
}

STEP_SECTIONS = ("optimizer", "schedule", "training")
"""What only a model that is trained step by step has; the baselines' experiments go without."""

STEPLESS_MODELS = ("linear_baseline", "pixel_baseline")
"""Fitted in one piece."""

DATA_OF_MODELS = {
    "t5_from_scratch": "text",
    "t5_pretrained": "text",
    "xcit": "images",
    "sentence_bert": "articles",
    "sentence_bert_pretrained": "articles",
    "bert": "segments",
    "linear_baseline": "table",
    "pixel_baseline": "pixels",
}
"""Model -> the one kind of examples it takes."""

DEFAULT_CHOICES = {"training": "loop", "tracking": "mlflow"}
"""The choice of a section whose `name` may be left out; that of `folds` is the competition's own."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment, typed and checked.

    Raises:
        ValueError: When sections do not fit one another; the message starts with the full key.
    """

    name: str
    """The file's stem; a file in a folder carries the folder's name before it, smoke_mt5_adafactor."""
    parent: str | None = field(default=None, compare=False)
    """The experiment whose file holds what this one leaves out; its own parent must be none."""
    competition: str
    """Whose data, metric and folds: a file's stem in pipelines/competitions/catalogue."""
    seed: int = 0
    """Seed of weights, order and dropout, below 2^32; the folds have their own."""
    fold: str = "each"
    """each: every fold in turn; 0, 1, ...: that fold; all: train on every row and validate on none."""
    model: (
        T5FromScratch
        | T5Pretrained
        | XCiT
        | SentenceBert
        | SentenceBertPretrained
        | Bert
        | LinearBaseline
        | PixelBaseline
    )
    """What is trained."""
    data: Text | Images | Articles | Segments | Table | Pixels
    """How rows become examples."""
    optimizer: Adafactor | AdamW | None = None
    """How gradients become steps; left out with a baseline."""
    schedule: Constant | Linear | Cosine | InverseSqrt | None = None
    """The learning rate over the run; left out with a baseline."""
    training: Loop | None = None
    """How long, in what portions, and what is kept; left out with a baseline."""
    folds: Holdout | KFold | Time
    """How training rows are split; the competition's own way where the section is left out."""
    tracking: MLflow | JsonLines | NoTracking
    """Where the run is recorded."""
    raw: Mapping[str, Any] = field(compare=False)
    """The resolved file as plain values, in the schema's order."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Dotted key -> file, parent, override or competition; keys at their default are absent."""

    def __post_init__(self) -> None:
        at_least(self, 0, "seed")
        at_most(self, LARGEST_SEED, "seed")
        _check_fold(self)
        _check_data(self)
        _check_trimming(self)
        _check_head(self)
        _check_articles(self)
        _check_tokens(self)
        _check_layers(self)
        _check_steps(self)

    @property
    def loop(self) -> Loop:
        """The training section of an experiment that is known to have one."""
        assert self.training is not None, f"{self.name} is not trained step by step"
        return self.training


def _check_fold(experiment: Experiment) -> None:
    num_folds = experiment.folds.num_folds
    if experiment.fold not in {"each", "all", *map(str, range(num_folds))}:
        folds = f"{experiment.folds.name} has fold 0" + (f" to {num_folds - 1}" if num_folds > 1 else " only")
        raise ValueError(f"fold: {experiment.fold!r} is not a fold; {folds}, or say each or all")
    training = experiment.training
    if experiment.fold == "all" and training is not None and training.early_stopping_patience is not None:
        raise ValueError(
            f"training.early_stopping_patience: {training.early_stopping_patience} with fold all, "
            "which validates on nothing; needs null"
        )


def _check_data(experiment: Experiment) -> None:
    model, data = experiment.model, experiment.data
    if data.name != DATA_OF_MODELS[model.name]:
        wanted = DATA_OF_MODELS[model.name]
        raise ValueError(f"data.name: {data.name!r} does not suit model {model.name}; needs {wanted}")
    if isinstance(data, Text) and isinstance(model, T5Pretrained) != (data.vocabulary == "checkpoint"):
        wanted = "checkpoint" if isinstance(model, T5Pretrained) else "file, unigram, bpe, character or word"
        raise ValueError(f"data.vocabulary: {data.vocabulary!r} does not suit model {model.name}; needs {wanted}")


def _check_trimming(experiment: Experiment) -> None:
    model, data = experiment.model, experiment.data
    if isinstance(model, T5Pretrained) and isinstance(data, Text) and starts_from_run(model) and data.trim_vocabulary:
        raise ValueError(
            f"data.trim_vocabulary: true with model.checkpoint: {model.checkpoint}, whose vocabulary is that run's; "
            "needs false here, and data.trim_for in the first stage"
        )


def _check_head(experiment: Experiment) -> None:
    model, training = experiment.model, experiment.training
    if training is None:
        return
    if isinstance(model, XCiT | Bert) and training.z_loss:
        raise ValueError(f"training.z_loss: {training.z_loss} with model {model.name}, which has none; needs 0")
    if isinstance(model, T5FromScratch | T5Pretrained) and model.head == "classifier":
        for name in ("label_smoothing", "z_loss"):
            if value := getattr(training, name):
                raise ValueError(f"training.{name}: {value} with model.head classifier, which has none; needs 0")


def _check_articles(experiment: Experiment) -> None:
    model, data, training = experiment.model, experiment.data, experiment.training
    if not isinstance(data, Articles):
        return
    if isinstance(model, SentenceBert) and not model.bag_size and model.max_positions < data.max_length:
        raise ValueError(
            f"data.max_length: {data.max_length} with model.max_positions: {model.max_positions}; "
            f"needs {model.max_positions} at most, or a model.bag_size"
        )
    if training is not None:
        for name in ("label_smoothing", "z_loss"):
            if value := getattr(training, name):
                raise ValueError(f"training.{name}: {value} with data articles, whose losses have none; needs 0")


def _check_tokens(experiment: Experiment) -> None:
    model, training = experiment.model, experiment.training
    if training is None or training.tokens_per_batch is None or isinstance(model, Bert):
        return
    raise ValueError(
        f"training.tokens_per_batch: {training.tokens_per_batch} with model {model.name}, whose batches are counted in "
        "examples; needs null"
    )


def _check_layers(experiment: Experiment) -> None:
    """What is asked of layers and head must be there; of published weights that is known when they are loaded."""
    model, training, optimizer = experiment.model, experiment.training, experiment.optimizer
    if isinstance(model, XCiT) and model.checkpoint is None and training is not None:
        _check_plan(model, training, model.resolve().depth)
    if not isinstance(model, T5FromScratch) or training is None or optimizer is None:
        return
    if optimizer.head_lr is not None and model.head == "seq2seq" and model.tie_embeddings:
        raise ValueError(
            f"optimizer.head_lr: {optimizer.head_lr} with model.tie_embeddings: true, whose head is the embedding; "
            "needs null, or model.tie_embeddings: false"
        )
    for depth in (model.num_layers, model.num_decoder_layers):
        _check_plan(model, training, depth)


def _check_plan(model: T5FromScratch | XCiT, training: Loop, depth: int) -> None:
    try:
        plan = parse_plan(training.activation_checkpointing)
        plan.pieces(depth)
        if isinstance(plan, EmbeddingsPlan):
            raise ValueError(f"activation plan {plan}: {model.name} has no such embeddings; needs {plan.layers}")
    except ValueError as error:
        raise ValueError(f"training.activation_checkpointing: {error}") from error


def _check_steps(experiment: Experiment) -> None:
    optimizer, schedule, training = experiment.optimizer, experiment.schedule, experiment.training
    if optimizer is None or schedule is None or training is None:
        return
    warmup = schedule.num_warmup_steps
    if training.num_steps is not None and warmup > training.num_steps:
        raise ValueError(
            f"schedule.num_warmup_steps: {warmup} is more than training.num_steps: {training.num_steps}; "
            "the peak would never be reached"
        )
    if isinstance(optimizer, Adafactor) and optimizer.relative_step and (schedule.name, warmup) != ("constant", 0):
        raise ValueError(
            f"schedule.name: {schedule.name!r} with optimizer.relative_step: true, "
            "which sets its own rate; needs constant with num_warmup_steps: 0"
        )
