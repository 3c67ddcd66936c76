"""Signals become one exception, wherever they come, and the block that hears them leaves the handlers as they were."""

import multiprocessing
import os
import signal
import time

import pytest

from pipelines.interruption import STOPPING, Interruption, interruptible, way_on


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_raised_and_handlers_come_back(number):
    former = {each: signal.getsignal(each) for each in STOPPING}
    with pytest.raises(Interruption) as error, interruptible() as heard, way_on("outer"), way_on("inner"):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert (heard.number, error.value.number, error.value.way_on) == (number, number, "inner")
    assert {each: signal.getsignal(each) for each in STOPPING} == former


def test_one_that_a_finalizer_swallows_is_raised_once_more(capsys):
    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(Interruption), interruptible():
        Finalized()
        time.sleep(5)
    assert capsys.readouterr().err == ""


def test_a_command_under_nohup_goes_on_without_its_terminal():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as heard:
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard.number is None
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_forked_worker_ends_without_a_word(capfd):
    with interruptible():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        time.sleep(0.2)
        os.kill(worker.pid, signal.SIGINT)
        worker.join(timeout=60)
    assert worker.exitcode == 128 + signal.SIGINT
    assert capfd.readouterr() == ("", "")
