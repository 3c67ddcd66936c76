"""The sender alone, without any store: order, second tries, what is given up, and a crash."""

import json
import logging
import subprocess
import sys
import time

import pytest

from pipelines.tracking.journal import Journal, Line, Opening
from pipelines.tracking.mlflow.sending import Job, Lane, Patience, Sender, chunks, describe_error, without_password
from pipelines.tracking.place import Backend, TrackingPlace


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
def journal(tmp_path):
    journal = Journal.open(tmp_path / "tracking" / "unsent.jsonl")
    place = TrackingPlace(backend=Backend.MLFLOW, run_id="0123", uri="nowhere")
    journal.begin(Opening(place=place, file=str(journal.path)))
    return journal


@pytest.fixture
def start(journal):
    def start(total_seconds=3.0, idle_seconds=2.0):
        sender = Sender(
            journal,
            flush_seconds=60.0,
            is_hopeless=lambda error: isinstance(error, FileNotFoundError),
            is_away=lambda error: isinstance(error, TimeoutError),
            patience=Patience(total_seconds, idle_seconds),
        )
        sender.start()
        return sender

    return start


@pytest.fixture
def sender(start):
    return start()


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
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_no_second_try_can_cure_does_not_stop_the_rest(sender, journal):
    shelf = Shelf()
    sender.lanes.append(shelf)
    shelf.words += ["a", "impossible", "c"]
    sender.send_all()
    assert shelf.stored == ["a", "c"]
    refused = journal.path.with_name("refused.jsonl")
    assert json.loads(refused.read_text()) == {"run": "shelf", "error": "impossible", "word": "impossible"}
    assert sender.stop()


def test_a_lane_that_fails_does_not_hold_back_the_others(sender):
    away, near = Shelf("fold0"), Shelf("fold1")
    away.can_attach = False
    sender.lanes += [away, near]
    away.words += ["a", "b"]
    near.words.append("c")
    assert not sender.stop()
    assert (away.stored, near.stored) == ([], ["c"])


class Silence(Shelf):
    """A store that answers nothing for a while, and then with a timeout."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.num_asked = seconds, 0

    def attach(self):
        self.num_asked += 1
        time.sleep(self.seconds)
        raise TimeoutError("nobody answers")


def test_of_a_silent_store_no_lane_asks_again_in_the_same_round(sender):
    lanes = [Silence(0.01) for _ in range(30)]
    sender.lanes += lanes
    for lane in lanes:
        lane.words.append("a")
    assert not sender.send_all()
    assert [lane.num_asked for lane in lanes] == [1] + 29 * [0]


def test_a_silent_store_holds_the_end_no_longer_than_its_patience(start):
    sender = start(total_seconds=30.0, idle_seconds=0.5)
    silent = Silence(20.0)
    sender.lanes.append(silent)
    silent.words += 1000 * ["a"]
    started = time.monotonic()
    assert not sender.stop()
    assert 0.4 < time.monotonic() - started < 15
    assert silent.num_asked == 1


def test_a_slow_store_with_many_requests_holds_the_end_no_longer_than_the_total(start):
    class Slow(Shelf):
        def store(self, word):
            time.sleep(0.1)
            super().store(word)

    sender = start(total_seconds=1.0, idle_seconds=30.0)
    slow = Slow()
    sender.lanes.append(slow)
    slow.words += 1000 * ["a"]
    started = time.monotonic()
    assert not sender.stop()
    assert time.monotonic() - started < 30
    assert 1 < len(slow.stored) < 50


def test_the_journal_loses_what_was_sent_and_keeps_what_came_meanwhile(sender, journal):
    class Chatty(Shelf):
        def store(self, word):
            super().store(word)
            journal.add(Line(time=2, tags={"said": "meanwhile"}))

    chatty = Chatty()
    sender.lanes.append(chatty)
    chatty.words.append("a")
    journal.add(Line(time=1, tags={"said": "before"}))
    assert sender.send_all()
    journal.close(is_all_sent=False)
    assert [line.tags for line in Journal.take(journal.path).left] == [{"said": "meanwhile"}]


CRASHING_TRAINING = """
import sys
from pathlib import Path
from pipelines.tracking.journal import Journal
from pipelines.tracking.mlflow.sending import Job, Lane, Sender

class Printer(Lane):
    has_work = True
    def attach(self): pass
    def queue_jobs(self): self.jobs.append(Job(lambda: print("sent"), {}))

journal = Journal.open(Path(sys.argv[1]))
sender = Sender(journal, flush_seconds=60.0, is_hopeless=lambda error: False, is_away=lambda error: False)
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
