"""Whole or absent, for many writers at once, without leftovers; and lines that a full disk does not tear."""

import json
import multiprocessing
import os
import resource
import signal
import threading

import pytest

from components.files.atomic import atomic_file, atomic_folder, write_json
from components.files.json_lines import append_line, whole_lines

FORK = multiprocessing.get_context("fork")


def in_a_process(function):
    process = FORK.Process(target=function)
    process.start()
    process.join(timeout=60)
    return process.exitcode


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first", "the outer one ends last"
    with atomic_folder(tmp_path / "b") as first, atomic_folder(tmp_path / "b") as second:
        (first / "x").write_text("first")
        (second / "y").write_text("second")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_many_writers_leave_one_whole_file_and_nothing_else(tmp_path):
    errors = []

    def write(number):
        try:
            for _ in range(20):
                write_json(tmp_path / "a.json", [number] * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(json.loads((tmp_path / "a.json").read_text()))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_a_kill_left_is_removed_by_the_next_writer_and_nothing_else(tmp_path):
    def die_in_a_file():
        with atomic_file(tmp_path / "a") as partial:
            partial.write_text("half")
            kill_self()

    def die_in_a_folder():
        with atomic_folder(tmp_path / "b") as partial:
            (partial / "x").write_text("half")
            kill_self()

    assert (in_a_process(die_in_a_file), in_a_process(die_in_a_folder)) == (-signal.SIGKILL, -signal.SIGKILL)
    (tmp_path / "a.partial").write_text("of an older version")
    (tmp_path / "aa.0123456789abcdef.partial").write_text("of a writer of another file")
    for name in ("a.txt.partial", "a.0123.partial"):
        (tmp_path / name).write_text("somebody else's")
    assert len(list(tmp_path.iterdir())) == 5, "the second writer removed what was left of the first"
    with atomic_file(tmp_path / "a") as partial:
        partial.write_text("whole")
        with atomic_file(tmp_path / "a") as other:
            assert partial.read_text() == "whole", "a writer that lives keeps its file"
            other.write_text("other")
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "x").write_text("whole")
    kept = ["a", "a.0123.partial", "a.txt.partial", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_a_torn_last_line_is_passed_over_and_mended(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, '{"a": 1}')
    with path.open("ab") as file:
        file.write(b'{"a": 2, "b": "\xc3')
    assert whole_lines(path) == ['{"a": 1}']
    append_line(path, '{"a": 3}')
    with path.open("ab") as file:
        file.write(b'{"a": 4}')
    assert whole_lines(path) == ['{"a": 1}', '{"a": 3}', '{"a": 4}'], "whole but for its line break"
    append_line(path, '{"a": 5}')
    assert path.read_text() == '{"a": 1}\n{"a": 3}\n{"a": 4}\n{"a": 5}\n'
    assert whole_lines(tmp_path / "nothing.jsonl") == []


def test_a_short_write_is_noticed_and_undone(tmp_path):
    """The limit on a file's size does what a full disk does: the first write is short, the second fails."""
    path = tmp_path / "lines.jsonl"
    append_line(path, '{"a": 1}')

    def append_beyond_the_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(OSError, match=r"File too large: .*lines\.jsonl"):
            append_line(path, json.dumps({"a": "x" * 500}))

    assert in_a_process(append_beyond_the_limit) == 0
    assert path.read_text() == '{"a": 1}\n'


def test_many_processes_append_whole_lines(tmp_path):
    path = tmp_path / "lines.jsonl"

    def append():
        for number in range(50):
            append_line(path, json.dumps([os.getpid(), number, "x" * 3000]))

    processes = [FORK.Process(target=append) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert len({tuple(json.loads(line)[:2]) for line in whole_lines(path)}) == 200
