"""Classical models on a competition's images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from components.baselines.pixels import PixelBaseline, load_pixel_baseline
from components.data.images.dataset import LabelledImages
from components.data.images.files import BadImage, open_images
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.config.sections.pixels import Pixels
from pipelines.errors import ConfigError, PodiumError
from pipelines.learners.learner import FitResult, FoldJob
from pipelines.learners.tables import TableLearner
from pipelines.runs.record import Prepared
from pipelines.runs.run import Run
from pipelines.runs.scoring import encode_labels


class PixelLearner(TableLearner):
    """Fits a baseline on pixels, in seconds or a minute."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        super().__init__(experiment, competition, run)
        if competition.images is None:
            raise ConfigError(
                f"data.name: pixels, but {competition.name} has no images; needs the data of its own kind"
            )
        if competition.task not in ("binary", "multiclass"):
            raise ConfigError(
                f"model.name: pixel_baseline tells classes apart, and {competition.name} is {competition.task}"
            )
        assert isinstance(experiment.data, Pixels)
        self.section, self.column = experiment.data, competition.frame_column(competition.images.column)

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Nothing is shared between folds."""
        return {}

    def fit(self, job: FoldJob) -> FitResult:
        """Fit on at most `max_train_rows` of the fold's rows, drawn with the experiment's seed."""
        most = self.section.max_train_rows
        if most is not None and len(job.train) > most:
            job = replace(job, train=job.train.sample(most, random_state=self.experiment.seed))
        return super().fit(job)

    def _fit(self, baseline: Any, train: DataFrame) -> None:  # noqa: ANN401 - a baseline
        baseline.fit(self._inputs(train), encode_labels(self.competition, train))

    def _warn(self, baseline: Any, frame: DataFrame) -> None:  # noqa: ANN401 - a baseline
        """Images that cannot be read are refused."""

    def _inputs(self, frame: DataFrame) -> Any:  # noqa: ANN401 - (N, C, S, S) uint8
        section = self.section
        source = open_images(
            frame[self.column].tolist(),
            in_chans=section.in_chans,
            converts_grey=section.in_chans == 3,
            size_hint=section.img_size,
        )
        images = LabelledImages(source, None, img_size=section.img_size)
        try:
            return np.stack([images[row]["image"].numpy() for row in range(len(images))])
        except BadImage as error:
            raise PodiumError(f"{self.competition.name}: {error}; mend it, or remove its row") from error

    def _load(self, folder: Path) -> PixelBaseline:
        return load_pixel_baseline(folder)
