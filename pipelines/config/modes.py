"""Two ways of trying an experiment before paying for it, as overrides of whatever it says."""

from collections.abc import Callable, Mapping, Sequence

from pipelines.config.schema import Experiment
from pipelines.config.sections.section import Section

SMOKE_STEPS = 6
OVERFIT_STEPS = 300
CHANGES = ("rand_augment", "flip", "shift", "rotate", "zoom", "erase", "mixup", "cutmix")
"""What changes images at random; a random crop is switched off by 1."""


def smoke_overrides(experiment: Experiment) -> list[str]:
    """Every part of the run once, in seconds: few rows, few steps."""
    if experiment.training is None:
        return []
    overrides = [
        f"training.num_steps={SMOKE_STEPS}",
        "training.num_epochs=null",
        "training.batch_size=8",
        "training.eval_every_steps=3",
        "training.checkpoint_every_steps=3",
        "training.log_every_steps=1",
        "training.early_stopping_patience=null",
        "data.max_train_rows=256",
        "data.max_valid_rows=32",
    ]
    return overrides + _short_warmup(experiment, 1)


def overfit_overrides(experiment: Experiment) -> list[str]:
    """One batch again and again, without anything that keeps a model from learning it by heart."""
    loop = experiment.loop
    overrides = [
        f"training.num_steps={OVERFIT_STEPS}",
        "training.num_epochs=null",
        f"training.eval_every_steps={OVERFIT_STEPS}",
        "training.early_stopping_patience=null",
        "training.label_smoothing=0",
        "training.ema_decay=null",
        "training.gradient_accumulation_steps=1",
        "optimizer.weight_decay=0",
        *_switched_off("model", experiment.model, ("dropout", "drop_rate", "attn_drop_rate", "drop_path_rate")),
        *_switched_off("data", experiment.data, CHANGES),
        *(["data.crop_scale=1"] if hasattr(experiment.data, "crop_scale") else []),
        f"data.max_train_rows={loop.batch_size}",
    ]
    return overrides + _short_warmup(experiment, 20)


def _switched_off(kind: str, section: Section, names: Sequence[str]) -> list[str]:
    """Those of the fields that the section has, at 0."""
    return [f"{kind}.{name}=0" for name in names if hasattr(section, name)]


def _short_warmup(experiment: Experiment, num_steps: int) -> list[str]:
    assert experiment.schedule is not None
    return [f"schedule.num_warmup_steps={min(num_steps, experiment.schedule.num_warmup_steps)}"]


MODES: Mapping[str, Callable[[Experiment], list[str]]] = {"smoke": smoke_overrides, "overfit": overfit_overrides}
