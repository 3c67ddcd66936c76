"""What podium says to Kaggle's words is what docs/kaggle.md says, message by message."""

import re

from project import ROOT

from pipelines.kaggle.errors import SAYINGS, saying_of

PAGE = ROOT / "docs" / "kaggle.md"


def documented() -> list[str]:
    """The first column of the table of messages: Kaggle's words, and ours for what nobody quoted."""
    section = PAGE.read_text(encoding="utf-8").split("## When something fails")[1].split("\n### ")[0]
    return re.findall(r"^\| [`*]([^`*]+)[`*]", section, re.MULTILINE)


def test_every_message_that_is_known_is_explained():
    found = {saying.name for text in documented() if (saying := saying_of(text)) is not None}
    assert found == {saying.name for saying in SAYINGS}


def test_a_message_means_one_thing():
    """The classes of a failed rerun (Kaggle's own list) are called by their names."""
    classes = [text for text in documented() if text in {saying.name for saying in SAYINGS}]
    assert classes == [
        "Notebook Timeout",
        "Notebook Threw Exception",
        "Notebook Exceeded Allowed Compute",
        "Submission CSV Not Found",
        "Submission Scoring Error",
        "Kaggle Error",
    ]
    assert [saying_of(text).name for text in classes] == classes
    assert saying_of("something nobody has seen") is None
