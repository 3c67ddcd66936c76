"""Classical models on pixels: the baseline, the rows of pixels it is fitted to, and what builds it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipelines.config.checks import at_least, one_of
from pipelines.config.sections.context import ModelContext
from pipelines.config.sections.section import Section

if TYPE_CHECKING:
    from components.baselines import pixels

PIXEL_ESTIMATORS = ("nearest_neighbours", "logistic_regression", "svm_rbf")


@dataclass(frozen=True, kw_only=True)
class PixelBaseline(Section):
    """A model of scikit-learn on an image's pixels: the row that everything with an eye for shapes should beat."""

    name: ClassVar[str] = "pixel_baseline"

    estimator: str = "svm_rbf"
    """nearest_neighbours (k = 5), logistic_regression, or svm_rbf."""

    def __post_init__(self) -> None:
        one_of(self, "estimator", PIXEL_ESTIMATORS)


@dataclass(frozen=True, kw_only=True)
class Pixels(Section):
    """Images as rows of pixels, for models that look at each pixel by itself."""

    name: ClassVar[str] = "pixels"

    img_size: int = 28
    """Side in pixels that images are brought to: the shorter side is resized to it, the middle is kept."""
    in_chans: int = 1
    """Channels: 1 for grey, which colour images are then turned to, 3 for colour."""
    max_train_rows: int | None = 10_000
    """Fit on so many rows, drawn with the experiment's seed; null takes all. An SVM's time grows with the square."""

    def __post_init__(self) -> None:
        at_least(self, 1, "img_size", "max_train_rows")
        check_channels(self.in_chans)


def check_channels(in_chans: int) -> None:
    """ValueError for a number of channels that images have not."""
    if in_chans not in (1, 3):
        raise ValueError(f"in_chans: {in_chans} is not known; needs 1 (grey) or 3 (colour)")


def build_pixel_baseline(context: ModelContext, *, estimator: str) -> "pixels.PixelBaseline":
    from components.baselines import pixels

    return pixels.PixelBaseline(estimator=estimator, num_classes=context.num_classes or 2)
