"""Whole grades from a regression: the range that training rows have, kept in the run so that prediction needs no more.

A metric that compares labels (qwk) scores values as grades, so that submissions hold whole numbers between the lowest
and the highest grade.
"""

from dataclasses import replace

import numpy as np
from pandas import DataFrame

from pipelines.competitions.competition import Competition
from pipelines.competitions.tasks import submits_grades
from pipelines.errors import PodiumError


def find_grades(competition: Competition, train: DataFrame) -> tuple[int, int] | None:
    """The lowest and the highest grade that the competition states, or train's; None where no grades are submitted.

    Raises `PodiumError` for a label that is no whole grade.
    """
    if not submits_grades(competition.task, competition.metric):
        return None
    labels = train["label"].to_numpy(np.float64)
    fractions = np.flatnonzero(labels % 1 != 0)
    if len(fractions):
        row = int(fractions[0])
        raise PodiumError(
            f"{competition.name}: {competition.metric} compares whole grades, but the label of id "
            f"{train['id'].iloc[row]} is {labels[row]:g} ({len(fractions)} such rows); choose a metric of values, such "
            "as rmse"
        )
    return competition.grades or (int(labels.min()), int(labels.max()))


def with_grades(competition: Competition, recorded: tuple[int, int] | None) -> Competition:
    """The competition with the grades that a run recorded; as it is where there are none, as in older runs."""
    if recorded is None or not submits_grades(competition.task, competition.metric):
        return competition
    return replace(competition, grades=recorded)
