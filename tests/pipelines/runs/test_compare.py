"""The table of runs, in terminals of two widths, in a pipe, and as JSON."""

import io
import json

import pytest
from rich.console import Console
from tiny_competition import install_competition, make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.compare import compare, differing_parameters, flatten
from pipelines.runs.keeping import list_all
from pipelines.screen import Column, format_bytes, format_duration, print_table
from pipelines.workspace import Workspace

CONFIG = {"name": "x", "seed": 1, "optimizer": {"name": "adafactor", "lr": 0.03, "beta2": None}}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    install_competition(monkeypatch, tmp_path / "table", task="regression", metric="rmse", extra_metrics=("mae",))
    return Workspace(tmp_path / "checkout")


@pytest.fixture
def three_runs(workspace):
    """Two folds with lr .03; one fold with lr .01, on the leaderboard; one still running with another optimizer."""
    two = {"fold0/rmse": 1.0, "fold1/rmse": 2.0, "cv/rmse": 1.5, "oof/rmse": 1.58, "oof/mae": 1.2}
    make_run(workspace, "20261120-100000-aaaa", metrics=two, config=CONFIG)
    one = {"fold0/rmse": 1.25, "cv/rmse": 1.25}
    config = CONFIG | {"optimizer": CONFIG["optimizer"] | {"lr": 0.01}}
    folder = make_run(workspace, "20261121-100000-bbbb", metrics=one, config=config, wall_seconds=7500)
    told = {"time": "2026-11-21T12:00:00+00:00", "host": "kaggle", "competition": "tiny_task", "sha256": "a" * 64}
    entries = [
        told | {"ref": 1, "public": {}, "status": "PENDING"},
        told | {"ref": 1, "public": {"rmse": 1.4}, "status": "COMPLETE"},
        told | {"ref": 2, "public": {}, "status": "ERROR"},
    ]
    with write_lines(folder / "submissions.jsonl", *map(json.dumps, entries)).open("a") as file:
        file.write('{"torn')
    other = CONFIG | {"optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.01}}
    unfinished = {"status": "running", "wall_seconds": None, "peak_memory_bytes": None}
    make_run(workspace, "20261122-100000-cccc", experiment="second", config=other, **unfinished)
    return workspace


def printed(workspace: Workspace, width: int | None = None, **options) -> list[str]:
    """Lines as a terminal of this width shows them, or as a pipe gets them."""
    screen = io.StringIO()
    terminal = {"force_terminal": True, "width": width, "color_system": None} if width else {}
    compare(workspace, console=Console(file=screen, **terminal), **options)
    return screen.getvalue().splitlines()


def error_of(workspace: Workspace, **options) -> str:
    with pytest.raises(PodiumError) as error:
        printed(workspace, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_in_a_pipe_everything_is_printed(three_runs):
    assert printed(three_runs) == [
        "tiny_task: rmse, lower is better",
        "run                   experiment     OOF  ± folds      LB   time  memory  status    "
        "optimizer.name  optimizer.lr  optimizer.weight_decay     mae",
        "20261121-100000-bbbb  first_try   1.2500           1.4000  2h05m  1.2 GB  finished  "
        "adafactor               0.01                       -",
        "20261120-100000-aaaa  first_try   1.5800   0.7071          6m20s  1.2 GB  finished  "
        "adafactor               0.03                       -  1.2000",
        "20261122-100000-cccc  second                                              running   "
        "adamw                  0.001                    0.01",
        "",
    ]


def test_a_terminal_of_100_columns(three_runs):
    lines = printed(three_runs, width=100)
    assert [line.rstrip() for line in lines] == [
        "tiny_task: rmse, lower is better",
        "                                                                            optimizer.  optimizer.",
        "run                   experiment     OOF  ± folds      LB   time  status    name                lr",
        "─" * 98,
        "20261121-100000-bbbb  first_try   1.2500           1.4000  2h05m  finished  adafactor         0.01",
        "20261120-100000-aaaa  first_try   1.5800   0.7071          6m20s  finished  adafactor         0.03",
        "20261122-100000-cccc  second                                      running   adamw            0.001",
        "no room for memory, optimizer.weight_decay, mae: widen the terminal, or --json",
        "",
    ]


def test_a_terminal_of_160_columns(three_runs):
    lines = printed(three_runs, width=160)
    assert max(map(len, lines)) <= 160
    assert not any("…" in line or "no room" in line for line in lines)


def test_sorting(three_runs):
    def order(sort: str | None) -> str:
        return "".join(line.split()[0][-1] for line in printed(three_runs, sort=sort)[2:-1])

    assert order(None) == order("score") == "bac", "best first, runs without a score last"
    assert order("lb") == "bca", "newer runs first where there is nothing to compare"
    assert order("time") == "abc"
    assert order("started") == "cba"
    assert order("optimizer.lr") == "cba"
    assert order("optimizer.name") == "bac"
    assert order("optimizer.weight_decay") == "cba"
    assert error_of(three_runs, sort="lr") == (
        "--sort lr: no such column; choose one of score, lb, time, memory, started, or a parameter like optimizer.lr"
    )


def test_limit_and_one_experiment(three_runs):
    lines = printed(three_runs, limit=1)
    assert lines[2].startswith("20261121-100000-bbbb")
    assert lines[3] == "... 3 runs in all: --limit 3"
    lines = printed(three_runs, experiment="second")
    assert len(lines) == 4
    assert lines[2].startswith("20261122-100000-cccc")


def test_a_metric_where_higher_is_better(workspace, monkeypatch, tmp_path):
    install_competition(monkeypatch, tmp_path / "table", name="second_task", kaggle_slug="second-task")
    for run, score in (("20261120-100000-aaaa", 0.7), ("20261121-100000-bbbb", 0.9), ("20261122-100000-cccc", 0.8)):
        make_run(workspace, run, metrics={"oof/auc": score}, competition="second_task")
    make_run(workspace, "20261123-100000-dddd", metrics={"oof/rmse": 1.0})
    lines = printed(workspace, competition="second-task")
    assert lines[0] == "second_task: auc, higher is better"
    assert [line.split()[2] for line in lines[2:-1]] == ["0.9000", "0.8000", "0.7000"]
    titles = [line for line in printed(workspace) if "is better" in line]
    assert titles == ["second_task: auc, higher is better", "tiny_task: rmse, lower is better"]


def test_damaged_runs_are_listed_and_hide_nothing(three_runs):
    folder = three_runs.runs / "first_try"
    (folder / "20261120-100000-aaaa" / "metrics.json").write_text("[1]")
    (folder / "20261121-100000-bbbb" / "config.yaml").write_text("{unclosed: [")
    (folder / "20261122-100000-dddd").mkdir()
    lines = printed(three_runs)
    assert lines[-1] == f"damaged: {folder / '20261120-100000-aaaa' / 'metrics.json'}: damaged (holds no JSON object)"
    assert [line.split()[0] for line in lines[2:4]] == ["20261121-100000-bbbb", "20261122-100000-cccc"]
    assert len(lines) == 6
    assert printed(three_runs, competition="tiny_task") == lines


def test_nothing_to_compare(workspace):
    assert error_of(workspace) == f"no runs under {workspace.runs}; make one with: make experiment EXP=..."
    make_run(workspace, "20261120-100000-aaaa")
    assert error_of(workspace, experiment="x") == (
        f"experiment x: no runs under {workspace.runs}; make one with: make experiment EXP=..."
    )
    assert "no such competition" in error_of(workspace, competition="tiny_tusk")


def test_json_holds_everything(three_runs):
    folder = make_run(three_runs, "20261123-100000-dddd")
    (folder / "run.json").write_text("")
    items = json.loads("\n".join(printed(three_runs, as_json=True)))
    assert [item["run"][-4:] for item in items] == ["bbbb", "aaaa", "cccc", "dddd"]
    assert items[0] == {
        "run": "20261121-100000-bbbb",
        "experiment": "first_try",
        "mode": "real",
        "competition": "tiny_task",
        "metric": "rmse",
        "score": 1.25,
        "fold_scores": [1.25],
        "metrics": {"fold0/rmse": 1.25, "cv/rmse": 1.25},
        "lb": {"rmse": 1.4},
        "wall_seconds": 7500.0,
        "peak_memory_bytes": 1_234_000_000.0,
        "status": "finished",
        "started": "2026-11-21T10:00:00+00:00",
        "parameters_that_differ": {
            "optimizer.name": "adafactor",
            "optimizer.lr": 0.01,
            "optimizer.weight_decay": None,
        },
    }
    assert items[3]["status"] == "damaged"
    assert items[3]["damage"].startswith(f"{folder / 'run.json'}: unreadable (")


def test_parameters_that_differ():
    rows = [flatten(CONFIG), flatten(CONFIG | {"name": "y", "seed": 2}), {"seed": 1}]
    assert differing_parameters(rows[:1]) == []
    assert differing_parameters(rows[:2]) == ["seed"]
    assert differing_parameters(rows) == ["seed", "optimizer.name", "optimizer.lr"]
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2]}) == {"a.b.c": 1, "d": [1, 2]}


def test_columns_find_room_by_rank(capsys):
    columns = [
        Column("run", ["r" * 10]),
        Column("wide", ["w" * 20], rank=1),
        Column("narrow", ["n"], rank=2),
        Column("last", ["x" * 50], rank=1),
    ]
    screen = io.StringIO()
    left_out = print_table(Console(file=screen, force_terminal=True, width=42, color_system=None), columns, marked=[0])
    assert left_out == ["last"]
    assert [line.rstrip() for line in screen.getvalue().splitlines()] == [
        "run         wide                  narrow",
        "────────────────────────────────────────",
        "rrrrrrrrrr  wwwwwwwwwwwwwwwwwwww  n",
    ]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    assert print_table(console, columns) == []
    assert screen.getvalue().splitlines()[2].rstrip().endswith("n       " + "x" * 31 + "…")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.2, "0s"), (59.6, "1m00s"), (380, "6m20s"), (3599.6, "1h00m"), (7500, "2h05m")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_600, "1.0 MB"), (1_234_000_000, "1.2 GB")],
)
def test_bytes(num_bytes, text):
    assert format_bytes(num_bytes) == text


@pytest.fixture
def with_trials(three_runs):
    """Beside the three runs a smoke run and an overfit run, both with better scores than theirs."""
    config = CONFIG | {"seed": 9, "optimizer": CONFIG["optimizer"] | {"lr": 0.5}}
    for run, mode, score in (("20261123-100000-dddd", "smoke", 0.9), ("20261124-100000-eeee", "overfit", 0.01)):
        scores = {"fold0/rmse": score, "cv/rmse": score, "oof/rmse": score, "oof/mae": score}
        options = {"mode": mode, "wall_seconds": 2.0, "peak_memory_bytes": 1000}
        make_run(three_runs, run, metrics=scores, config=config, **options)
    folder = make_run(three_runs, "20261125-100000-ffff", metrics={"cv/rmse": 0.0})
    record = json.loads((folder / "run.json").read_text())
    write_lines(folder / "run.json", json.dumps(record | {"mode": "smoky"}))
    return three_runs


def test_smoke_and_overfit_runs_rank_nowhere(with_trials):
    lines = printed(with_trials)
    assert [line.split()[0][-4:] for line in lines[2:7]] == ["bbbb", "aaaa", "cccc", "eeee", "dddd"]
    assert lines[1].split()[:4] == ["run", "experiment", "mode", "OOF"]
    assert [line.split()[2] for line in lines[2:7]] == ["real", "real", "real", "overfit", "smoke"]
    assert "seed" not in lines[1], "what only they have otherwise takes no room from what real runs differ in"
    damaged = with_trials.runs / "first_try" / "20261125-100000-ffff" / "run.json"
    assert lines[-1] == f"damaged: {damaged}: mode: 'smoky': no such mode; it is null, smoke or overfit"


@pytest.mark.parametrize("sort", [None, "score", "lb", "time", "memory", "started", "optimizer.lr", "optimizer.name"])
def test_no_order_puts_them_before_a_real_run(with_trials, sort):
    items = json.loads("\n".join(printed(with_trials, sort=sort, as_json=True)))
    modes = [item.get("mode") for item in items]
    assert modes[:3] == ["real"] * 3
    assert set(modes[3:5]) == {"smoke", "overfit"}
    assert (items[5]["status"], modes[5]) == ("damaged", None)
    assert {key for item in items[:5] for key in item["parameters_that_differ"]} == {
        "optimizer.name",
        "optimizer.lr",
        "optimizer.weight_decay",
    }


def test_none_of_their_scores_is_the_best(with_trials):
    screen = io.StringIO()
    compare(with_trials, console=Console(file=screen, force_terminal=True, width=200, color_system="standard"))
    green = "\x1b[32m"
    best = [line for line in screen.getvalue().splitlines() if green in line]
    assert [line.split()[0][-4:] for line in best] == ["bbbb"]
    assert f"{green}1.2500" in best[0]


def test_the_limit_keeps_real_runs(with_trials):
    assert [line.split()[0][-4:] for line in printed(with_trials, limit=3)[2:5]] == ["bbbb", "aaaa", "cccc"]


def test_where_there_are_no_others_trials_are_shown(workspace):
    make_run(workspace, "20261120-100000-aaaa", mode="smoke", metrics={"cv/rmse": 1.5}, config=CONFIG)
    assert printed(workspace)[2].split()[:4] == ["20261120-100000-aaaa", "first_try", "smoke", "1.5000"]


def test_the_list_of_runs_says_their_modes(with_trials):
    screen = io.StringIO()
    list_all(with_trials, Console(file=screen))
    rows = [line.split() for line in screen.getvalue().splitlines()]
    assert rows[0] == ["experiment", "run", "mode", "status", "time", "size"]
    assert {row[1][-4:]: row[2] for row in rows[1:]} == {
        "aaaa": "real",
        "bbbb": "real",
        "cccc": "real",
        "dddd": "smoke",
        "eeee": "overfit",
        "ffff": "unknown",
    }
