"""The scikit-learn baseline in a competition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from components.atomic_files import atomic_folder
from components.tabular_baseline import load_tabular_baseline
from pipelines.build import build_baseline
from pipelines.competitions.competition import Competition
from pipelines.config.schema import Experiment
from pipelines.engine.learner import FitResult, FoldJob
from pipelines.engine.run_directory import RunDirectory
from pipelines.engine.scoring import count_classes, encode_labels, frame_probabilities, frame_texts

CHECKPOINT = "checkpoints/baseline"


class TableLearner:
    """Fits a baseline on the input columns as they are; seconds, so a resume simply fits again."""

    def __init__(self, experiment: Experiment, competition: Competition, run: RunDirectory) -> None:
        self.experiment, self.competition, self.run = experiment, competition, run

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Mapping[str, object]:
        """Nothing is shared between folds."""
        return {}

    def fit(self, job: FoldJob) -> FitResult:
        """Fit on the fold's training rows and save."""
        baseline: Any = build_baseline(self.experiment, self.competition.task, count_classes(self.competition))
        baseline.fit(self._inputs(job.train), encode_labels(self.competition, job.train))
        with atomic_folder(job.folder / CHECKPOINT) as folder:
            baseline.save(folder)
        return FitResult(checkpoint=CHECKPOINT, num_steps=1)

    def draw_figures(self, job: FoldJob, checkpoint: Path, folder: Path) -> Sequence[Path]:
        """None."""
        return []

    def predict(self, checkpoints: Sequence[Path], frame: DataFrame) -> DataFrame:
        """The mean over the folds' baselines; for text the first one's."""
        inputs = self._inputs(frame)
        outputs: list[Any] = [self._load(folder).predict(inputs) for folder in checkpoints]
        if self.competition.task == "text_to_text":
            return frame_texts(frame, outputs[0], [0.0] * len(frame))
        return frame_probabilities(self.competition, frame, np.mean(outputs, axis=0))

    def _inputs(self, frame: DataFrame) -> Any:  # noqa: ANN401 - what the baseline's own fit takes
        return self.competition.inputs(frame)

    def _load(self, folder: Path) -> Any:  # noqa: ANN401 - a baseline
        return load_tabular_baseline(folder)
