"""The matrix of faults of benchmarks/reliability.py: what it counts as wrong, what it keeps, and one case whole."""

import json
import subprocess
import sys

import pytest
from project import ROOT


@pytest.fixture
def matrix(monkeypatch):
    """The harness and its parts."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reliability

    return reliability


def make_outcome(code, err="", out=""):
    from faults.podium import Outcome

    return Outcome("podium predict", code, out, err, 1.5, 0)


def test_an_end_is_right_where_it_is_a_success_or_one_line(matrix):
    faults = {
        make_outcome(0).fault(),
        make_outcome(2, "step 3\npodium: run.json: damaged\n").fault(),
    }
    assert faults == {""}
    assert make_outcome(2, "step 3\npodium: run.json: damaged\n").line == "run.json: damaged"
    assert make_outcome(2, "podium: a\nb\n").fault().startswith("more than one line")
    assert make_outcome(2, "usage: podium\n").fault().startswith("more than one line")
    trace = "Traceback (most recent call last):\n  ...\nKeyError: 'seed'\n"
    assert make_outcome(1, trace).fault() == "traceback: KeyError: 'seed'"
    assert make_outcome(-6, "terminate").fault() == "exit code -6: terminate"
    assert make_outcome(None).fault() == "hangs: no end after 2 s"


def test_another_result_without_a_word_is_wrong(matrix, tmp_path):
    from faults.cases import Wrong
    from faults.damages import judge

    run = tmp_path / "runs" / "first" / "20261121-100000-aaaa"
    run.mkdir(parents=True)
    (run / "submission.csv").write_text("id,label\na,0\n")
    weights, same, other = run / "model.safetensors", {"submission.csv": b"id,label\na,0\n"}, {"submission.csv": b""}
    assert judge(tmp_path, run, "predict", weights, make_outcome(0), same) == "harmless"
    with pytest.raises(Wrong, match=r"^silently another result: submission.csv \(other bytes\)$"):
        judge(tmp_path, run, "predict", weights, make_outcome(0), other)
    refused = make_outcome(2, f"podium: {weights}: damaged or changed")
    assert judge(tmp_path, run, "predict", weights, refused, other) == "clear line"
    with pytest.raises(Wrong, match=r"^names no file: something failed$"):
        judge(tmp_path, run, "predict", weights, make_outcome(2, "podium: something failed"), same)


def test_only_the_newest_resume_points_count_and_half_made_things_are_found(matrix, tmp_path):
    from faults.inputs import find_leftovers, read_products

    run = tmp_path / "runs" / "first" / "20261121-100000-aaaa"
    for name in ("fold0/resume/step-00000004/a", "fold0/resume/step-00000008/a", "oof.parquet", "figures/a.png"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    assert list(read_products(run)) == ["fold0/resume/step-00000008/a", "oof.parquet"]
    assert find_leftovers(tmp_path) == ["runs/first/20261121-100000-aaaa"]
    (run / "run.json").touch()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "resolved.partial").touch()
    assert find_leftovers(tmp_path) == ["experiments/resolved.partial"]


def test_the_matrix_is_as_large_as_its_page_says(matrix):
    cases = {part: list(find()) for part, find in matrix.PARTS.items()}
    assert list(cases) == ["kills", "damages", "races", "disks", "server"]
    assert len(cases["kills"]) >= 100
    assert len(cases["damages"]) >= 180
    names = [case.name for part in cases.values() for case in part]
    assert len(set(names)) == len(names)


def test_a_part_that_is_run_again_replaces_its_rows(matrix, tmp_path):
    from faults.cases import Row

    path = tmp_path / "results" / "reliability-abc.json"
    wrong = Row("kills", "submit", trials=2, exceptions=[{"case": "kill submit 1", "said": "disagreement: ..."}])
    matrix.merge(path, "abc", {"part": "kills", "seed": 1}, [wrong])
    matrix.merge(path, "abc", {"part": "races", "seed": 1}, [Row("races", "4 submits", trials=3)])
    assert "| kills: submit | 1/2 | 1 x disagreement |" in matrix.table([path])
    matrix.merge(path, "abc", {"part": "kills", "seed": 2}, [Row("kills", "submit", trials=2)])
    content = json.loads(path.read_text())
    assert [(row["part"], row["right"], row["trials"]) for row in content["rows"]] == [("kills", 2, 2), ("races", 3, 3)]
    assert content["parts"]["kills"]["seed"] == 2
    matrix.merge(path, "def", {"part": "races", "seed": 1}, [Row("races", "4 submits", trials=3)])
    assert list(json.loads(path.read_text())["parts"]) == ["races"], "another commit's results are begun anew"


@pytest.mark.processes
def test_a_case_goes_through_the_command_line():
    command = [sys.executable, ROOT / "benchmarks" / "reliability.py", "--only", "server", "--cases", "server absent"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 2
    assert "1/1" in result.stdout.splitlines()[1]
