"""What is said of a run that was stopped, whichever way."""

from types import SimpleNamespace

import pytest

from components.training.loop import Interrupted
from pipelines.errors import PodiumError
from pipelines.training.execution import _recorded


@pytest.mark.parametrize(
    ("stopped", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (Interrupted("stopped after step 3 of 9"), "stopped after step 3 of 9")],
)
def test_a_stopped_run_says_why_and_how_to_go_on(tmp_path, stopped, reason):
    """A second Ctrl-C is an interrupt without words."""
    context = SimpleNamespace(run=SimpleNamespace(path=tmp_path / "r1"), is_main=False)
    with pytest.raises(PodiumError) as error, _recorded(context):
        raise stopped
    assert str(error.value) == f"{reason}; go on with: make resume RUN=r1"
