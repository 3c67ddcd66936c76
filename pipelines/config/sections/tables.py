"""Models on tables: the baseline on n-grams and numbers, the columns it reads, and what builds it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import above, at_least, one_of
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from components.tables.model import TabularBaseline

ESTIMATORS = ("auto", "linear", "boosting")


@dataclass(frozen=True, kw_only=True)
class LinearBaseline(Section):
    """A model of scikit-learn on n-grams and numbers, fitted in seconds: the row that every other model should beat."""

    name: ClassVar[str] = "linear_baseline"

    estimator: str = "auto"
    """linear, boosting, or auto: linear where there is a column of free text, gradient boosting elsewhere."""
    max_features: int = 50_000
    """The most frequent words, and as many n-grams of characters, that the linear model keeps per column of text."""
    char_ngrams: bool = True
    """Count character n-grams beside words: slower, and better on short or many-lingual text."""
    strength: float = 1.0
    """Inverse of the linear model's regularisation: higher fits the training rows more closely."""

    def __post_init__(self) -> None:
        one_of(self, "estimator", ESTIMATORS)
        at_least(self, 1, "max_features")
        above(self, 0, "strength")


@dataclass(frozen=True, kw_only=True)
class Table(Section):
    """The input columns as they are, for models that make their own features."""

    name: ClassVar[str] = "table"


def build_linear_baseline(
    context: ModelContext, *, estimator: str, max_features: int, char_ngrams: bool, strength: float
) -> "TabularBaseline":
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
