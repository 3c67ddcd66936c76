"""Models of scikit-learn from an experiment's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.builders.context import ModelContext

if TYPE_CHECKING:
    from components.baselines.pixels import PixelBaseline
    from components.tables.model import TabularBaseline


def build_linear_baseline(
    context: ModelContext, *, estimator: str, max_features: int, char_ngrams: bool, strength: float
) -> TabularBaseline:
    from components.tables.model import TabularBaseline

    return TabularBaseline(
        task=context.task,
        num_classes=context.num_classes,
        estimator=estimator,
        max_features=max_features,
        char_ngrams=char_ngrams,
        strength=strength,
        seed=context.seed,
    )


def build_pixel_baseline(context: ModelContext, *, estimator: str) -> PixelBaseline:
    from components.baselines.pixels import PixelBaseline

    return PixelBaseline(estimator=estimator, num_classes=context.num_classes or 2)
