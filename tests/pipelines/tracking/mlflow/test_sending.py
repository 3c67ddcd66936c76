"""The sender alone, without any store: order, second tries, what is given up, and a crash."""

import json
import logging
import subprocess
import sys

import pytest

from pipelines.tracking.mlflow.sending import Job, Lane, Sender, chunks, describe_error, without_password


class Shelf(Lane):
    """A store in memory which refuses the words it is told to."""

    def __init__(self, name="shelf"):
        super().__init__(name)
        self.words = []
        self.stored = []
        self.refused = set()
        self.can_attach = True

    @property
    def has_work(self):
        return bool(self.words or self.jobs)

    def attach(self):
        if not self.can_attach:
            raise ConnectionError("away")

    def queue_jobs(self):
        self.jobs.extend(Job(lambda word=word: self.store(word), {"word": word}) for word in self.words)
        self.words.clear()

    def store(self, word):
        if word in self.refused:
            raise ConnectionError(word)
        if word == "impossible":
            raise FileNotFoundError(word)
        self.stored.append(word)


@pytest.fixture
def sender(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.tracking.mlflow.sending.time.sleep", lambda seconds: None)
    unsent = tmp_path / "tracking" / "unsent.jsonl"
    sender = Sender(unsent, flush_seconds=60.0, is_hopeless=lambda error: isinstance(error, FileNotFoundError))
    sender.start()
    return sender


def read_unsent(sender):
    return [json.loads(line) for line in sender._unsent.open()] if sender._unsent.exists() else []


def test_what_fails_keeps_its_order_and_arrives_later(sender, caplog):
    shelf = Shelf()
    sender.lanes.append(shelf)
    shelf.refused = {"b"}
    shelf.words += ["a", "b", "c"]
    sender.send_all()
    assert shelf.stored == ["a"]
    shelf.words.append("d")
    sender.send_all()
    shelf.refused = set()
    sender.stop()
    assert shelf.stored == ["a", "b", "c", "d"]
    assert read_unsent(sender) == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_no_second_try_can_cure_does_not_stop_the_rest(sender):
    shelf = Shelf()
    sender.lanes.append(shelf)
    shelf.words += ["a", "impossible", "c"]
    sender.send_all()
    assert shelf.stored == ["a", "c"]
    assert read_unsent(sender) == [{"run": "shelf", "word": "impossible"}]
    sender.stop()


def test_the_end_writes_down_what_is_left_and_other_lanes_go_on(sender):
    away, near = Shelf("fold0"), Shelf("fold1")
    away.can_attach = False
    sender.lanes += [away, near]
    away.words += ["a", "b"]
    near.words.append("c")
    sender.stop()
    assert near.stored == ["c"]
    assert read_unsent(sender) == [{"run": "fold0", "word": "a"}, {"run": "fold0", "word": "b"}]


CRASHING_TRAINING = """
import sys
from pathlib import Path
from pipelines.tracking.mlflow.sending import Job, Lane, Sender

class Printer(Lane):
    has_work = True
    def attach(self): pass
    def queue_jobs(self): self.jobs.append(Job(lambda: print("sent"), {}))

sender = Sender(Path(sys.argv[1]), flush_seconds=60.0, is_hopeless=lambda error: False)
sender.lanes.append(Printer("run"))
sender.start()
raise RuntimeError("nobody caught this")
"""


def test_a_crash_still_sends_what_was_logged(tmp_path):
    command = [sys.executable, "-c", CRASHING_TRAINING, str(tmp_path / "unsent.jsonl")]
    crashed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (crashed.returncode, crashed.stdout) == (1, "sent\n")
    assert crashed.stderr.splitlines()[-1] == "RuntimeError: nobody caught this"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ada:secret@host:5432/db", "postgresql://host:5432/db"),
        ("request to http://ada:secret@host/api failed", "request to http://host/api failed"),
        ("sqlite:////somewhere/mlflow.db", "sqlite:////somewhere/mlflow.db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ],
)
def test_no_password_is_shown(text, expected):
    assert without_password(text) == expected


def test_an_error_is_told_in_one_line():
    assert describe_error(ValueError("no such\n table: x")) == "no such table: x"
    assert describe_error(TimeoutError()) == "TimeoutError"


def test_chunks_hold_every_item_once():
    assert [list(chunk) for chunk in chunks(list(range(5)), 2)] == [[0, 1], [2, 3], [4]]
