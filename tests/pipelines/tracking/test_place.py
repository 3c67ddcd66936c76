"""What run.json says of a run's tracker is read with its entries held to their types."""

import pytest

from pipelines.records import DamagedRecord
from pipelines.tracking.place import Backend, TrackingPlace

WHOLE = TrackingPlace(backend=Backend.MLFLOW, run_id="0123", uri="sqlite:////checkout/mlflow.db")


def test_a_place_is_read_as_it_was_written():
    assert WHOLE.entries() == {"backend": "mlflow", "run_id": "0123", "uri": "sqlite:////checkout/mlflow.db"}
    assert TrackingPlace.of(WHOLE.entries(), "run.json") == WHOLE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"backend": "wandb"}, "run.json: tracking: backend: 'wandb' is not 'mlflow', 'jsonl' or 'none'"),
        ({"backend": "mlflow", "run_id": 7}, "run.json: tracking: run_id: 7 is not a text"),
        ([1], "run.json: tracking: damaged (holds no JSON object: [1])"),
    ],
)
def test_what_is_no_place_is_named(content, said):
    with pytest.raises(DamagedRecord) as error:
        TrackingPlace.of(content, "run.json: tracking")
    assert str(error.value) == said
