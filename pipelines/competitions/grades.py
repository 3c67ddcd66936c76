"""Whole grades from a regression: the range that training rows have, kept in the run so that prediction needs no more.

A metric that compares labels (qwk) scores values as grades, so that submissions hold whole numbers between the lowest
and the highest grade.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pandas import DataFrame

from pipelines.competitions.competition import Competition
from pipelines.competitions.tasks import submits_grades
from pipelines.errors import PodiumError

ENTRY = "grades"


def record_grades(competition: Competition, train: DataFrame) -> dict[str, object]:
    """The entry of run.json, empty where no grades are submitted: those that the competition states, or train's.

    Raises `PodiumError` for a label that is no whole grade.
    """
    if not submits_grades(competition.task, competition.metric):
        return {}
    labels = train["label"].to_numpy(np.float64)
    fractions = np.flatnonzero(labels % 1 != 0)
    if len(fractions):
        row = int(fractions[0])
        raise PodiumError(
            f"{competition.name}: {competition.metric} compares whole grades, but the label of id "
            f"{train['id'].iloc[row]} is {labels[row]:g} ({len(fractions)} such rows); choose a metric of values, such "
            "as rmse"
        )
    return {ENTRY: list(competition.grades or (int(labels.min()), int(labels.max())))}


def with_grades(competition: Competition, record: Mapping[str, object]) -> Competition:
    """The competition with the grades that a run recorded; as it is where there are none, as in older runs."""
    recorded = record.get(ENTRY)
    if not isinstance(recorded, list) or not submits_grades(competition.task, competition.metric):
        return competition
    lowest, highest = (int(grade) for grade in recorded)
    return replace(competition, grades=(lowest, highest))
