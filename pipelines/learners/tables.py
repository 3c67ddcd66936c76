"""The scikit-learn baseline in a competition."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame

from components.files.digests import sealed_folder
from components.tables.features import ColumnKinds, Stranger, column_kinds, find_strangers, has_values
from components.tables.model import load_tabular_baseline
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_baseline
from pipelines.config.schema import Experiment
from pipelines.errors import ConfigError, PodiumError
from pipelines.learners.learner import FitResult, FoldJob
from pipelines.runs.record import Prepared
from pipelines.runs.run import Run
from pipelines.runs.scoring import count_classes, encode_labels, frame_probabilities, frame_texts

CHECKPOINT = "checkpoints/baseline"


class TableLearner:
    """Fits a baseline on the input columns as they are; seconds, so a resume simply fits again."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        self.experiment, self.competition, self.run = experiment, competition, run
        if experiment.data.name == "table" and not self._columns:
            raise ConfigError(
                f"model.name: {experiment.model.name} reads tables, and {competition.name} has nothing but images; "
                "pixel_baseline and xcit read these"
            )

    @property
    def _columns(self) -> list[str]:
        """The inputs without the images, of which a table holds only the paths."""
        images = self.competition.images
        return [name for name in self.competition.input_columns if images is None or name != images.column]

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """The kind of each column, decided once over all rows, so that no fold takes words for missing numbers.

        Raises `PodiumError` where test holds other cells than the numbers or dates of train, and where train holds
        nothing at all.
        """
        inputs, may_be_category = self._table(train), self.competition.task != "text_to_text"
        if not any(has_values(inputs[name]) for name in self._columns):
            raise PodiumError(f"{self.competition.name}: no cell of {', '.join(self._columns)} holds a value in train")
        kinds = column_kinds(inputs, may_be_category=may_be_category, beside=self._table(test))
        for stranger in find_strangers(self._table(test), kinds):
            raise PodiumError(
                f"{self.competition.name}: test, {_named(stranger, test)}, while every filled cell of train is one "
                f"there; write them as train does, empty these cells, or take {stranger.column} out of input_columns"
            )
        return {"column_kinds": asdict(kinds)}

    def fit(self, job: FoldJob) -> FitResult:
        """Fit on the fold's training rows and save."""
        baseline: Any = build_baseline(self.experiment, self.competition.task, count_classes(self.competition))
        self._fit(baseline, job.train)
        with sealed_folder(job.folder / CHECKPOINT) as folder:
            baseline.save(folder)
        return FitResult(checkpoint=CHECKPOINT, num_steps=1)

    def _fit(self, baseline: Any, train: DataFrame) -> None:  # noqa: ANN401 - a baseline
        # The record of an older run has no kinds: there each fold goes by its own rows.
        kinds = self.run.read_record().column_kinds
        whole = None if kinds is None else ColumnKinds(**kinds)
        baseline.fit(self._table(train), encode_labels(self.competition, train), whole=whole)

    def draw_figures(self, job: FoldJob, checkpoint: Path, folder: Path) -> Sequence[Path]:
        """None."""
        return []

    def predict(self, checkpoints: Sequence[Path], frame: DataFrame) -> DataFrame:
        """The mean over the folds' baselines; for text the first one's."""
        inputs, outputs = self._inputs(frame), []  # of each fold
        for number, folder in enumerate(checkpoints):
            baseline = self._load(folder)
            if number == 0:
                self._warn(baseline, frame)
            outputs.append(baseline.predict(inputs))
        if self.competition.task == "text_to_text":
            return frame_texts(frame, outputs[0], [0.0] * len(frame))
        return frame_probabilities(self.competition, frame, np.mean(outputs, axis=0))

    def _warn(self, baseline: Any, frame: DataFrame) -> None:  # noqa: ANN401 - a baseline
        """Hidden rows may hold what no row did before; they are answered for all the same."""
        for stranger in find_strangers(self._inputs(frame), baseline.kinds):
            warnings.warn(f"{_named(stranger, frame)}; taken for an empty cell", stacklevel=1)

    def _table(self, frame: DataFrame) -> DataFrame:
        """What is fitted: the inputs under their files' names, without images."""
        return self.competition.inputs(frame)[self._columns]

    def _inputs(self, frame: DataFrame) -> Any:  # noqa: ANN401 - what the baseline's own predict takes
        """All inputs: a baseline of an older run was fitted on the paths of images too, and takes what it knows."""
        return self.competition.inputs(frame)

    def _load(self, folder: Path) -> Any:  # noqa: ANN401 - a baseline
        return load_tabular_baseline(folder)


def _named(stranger: Stranger, frame: DataFrame) -> str:
    more = f" ({stranger.number} such rows)" if stranger.number > 1 else ""
    kind = "number" if stranger.kind == "numbers" else "date such as 2024-01-31"
    return f"column {stranger.column}, id {frame['id'].iloc[stranger.row]}: {stranger.value!r} is no {kind}{more}"
