"""What holds for every learner of a neural network."""

import numpy as np
import pytest
from pandas import DataFrame
from tiny_competition import make_competition

from pipelines.learners.neural import _interleave
from pipelines.runs.scoring import frame_probabilities


@pytest.mark.parametrize(
    ("task", "width", "classes"),
    [("binary", 2, ()), ("multiclass", 3, ("a", "b", "c")), ("multilabel", 2, ()), ("regression", 1, ())],
)
def test_a_process_without_a_validation_row_takes_part(task, width, classes):
    """Of one row and two processes, one has nothing to predict; joined, it is as with one process."""
    metric = {"regression": "rmse", "binary": "log_loss"}.get(task, "log_loss" if task == "multiclass" else "f1")
    labels = ("one", "two") if task == "multilabel" else ("label",)
    rules = make_competition(task=task, metric=metric, extra_metrics=(), class_names=classes, label_columns=labels)
    frame = DataFrame({"id": ["7"]})
    whole = frame_probabilities(rules, frame, np.full((1, width), 0.25))
    nothing = frame_probabilities(rules, frame.iloc[1:], np.zeros((0, 0)))
    assert nothing.columns.tolist() == whole.columns.tolist()
    assert _interleave([whole, nothing]).to_dict() == whole.to_dict()
