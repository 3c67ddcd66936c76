"""The columns MLflow's runs table should show: CV beside leaderboard, which its defaults hide.

MLflow's UI reads a shared view from an experiment tag; the address `#/experiments/<id>/runs?viewStateShareKey=scores`
opens it. Nothing here talks to MLflow.
"""

import json
from collections.abc import Iterable

SCORES_VIEW = "scores"
SCORES_VIEW_TAG = f"mlflow.sharedViewState.{SCORES_VIEW}"
_SCORES = ("cv/", "oof/", "lb/")
_PARAMS = ("model.name", "optimizer.name", "optimizer.lr", "seed")


def build_scores_view(metric_keys: Iterable[str], previous: str | None = None) -> str:
    """The view as JSON: the scores among `metric_keys`, those that `previous` showed, and a few parameters."""
    columns = {f"metrics.`{key}`" for key in metric_keys if key.startswith(_SCORES)}
    if previous:
        columns |= {column for column in json.loads(previous)["selectedColumns"] if column.startswith("metrics.")}
    return json.dumps({"selectedColumns": sorted(columns) + [f"params.`{key}`" for key in _PARAMS]})
