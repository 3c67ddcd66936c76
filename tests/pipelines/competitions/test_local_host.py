"""The embedded leaderboard: scores, places, the daily limit, and two processes at once."""

import hashlib
import json
import math
import multiprocessing
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tiny_competition import make_competition

from pipelines.competitions.local_host import LeaderboardRow, LocalHost
from pipelines.errors import PodiumError

RULES = make_competition(task="regression", metric="rmse", extra_metrics=("mae",))
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = NOON):
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def folder(tmp_path):
    """Public answers 0 0, private answers 0 0 (rows alternate), and two baselines: public rmse 1 and 3."""
    folder = tmp_path / "local_host" / "tiny-task"
    (folder / "baselines").mkdir(parents=True)
    write_csv(folder / "solution.csv", "id,label,usage", "a,0,public", "b,0,private", "c,0,public", "d,0,private")
    write_csv(folder / "baselines" / "ones.csv", "id,label", "a,1", "b,1", "c,1", "d,1")
    write_csv(folder / "baselines" / "threes.csv", "id,label", "a,3", "b,0", "c,3", "d,0")
    return folder


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def submission(folder: Path, a, b, c, d) -> Path:
    return write_csv(folder / "submission.csv", "id,label", f"a,{a}", f"b,{b}", f"c,{c}", f"d,{d}")


def submit(host: LocalHost, path: Path, run: str = "run1", **options):
    return host.submit(path, run=run, experiment="exp", description="a try", **options)


def test_receipt(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    receipt = submit(host, submission(folder, 2, 9, 0, 9))
    assert receipt.ref == 1
    assert receipt.public == pytest.approx({"rmse": math.sqrt(2), "mae": 1.0})
    assert list(receipt.public) == ["rmse", "mae"]
    assert receipt.private is None
    assert (receipt.place, receipt.num_rows) == (2, 3)
    assert receipt.remaining_today == 2
    assert receipt.same_as is None
    revealed = submit(host, submission(folder, 0, 9, 0, 9), reveal=True)
    assert revealed.private == {"rmse": 9.0, "mae": 9.0}
    assert (revealed.place, revealed.num_rows) == (3, 3), "the private part decides once it is revealed"


def test_ledger_and_copies(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    path = submission(folder, 2, 5, 2, 5)
    submit(host, path)
    (line,) = (folder / "leaderboard.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "ref": 1,
        "time": "2026-11-22T12:00:00+00:00",
        "run": "run1",
        "experiment": "exp",
        "description": "a try",
        "sha256": hashlib.sha256(b"id,label\na,2\nb,5\nc,2\nd,5\n").hexdigest(),
        "public": {"rmse": 2.0, "mae": 2.0},
        "private": {"rmse": 5.0, "mae": 5.0},
    }
    assert (folder / "submissions" / "00001.csv").read_bytes() == path.read_bytes()
    submit(host, submission(folder, 0, 0, 0, 0), run="run2")
    lines = (folder / "leaderboard.jsonl").read_text().splitlines()
    assert lines[0] == line
    assert len(lines) == 2


def test_leaderboard_is_ordered_by_the_metric(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    submit(host, submission(folder, 2, 0, 2, 0), run="run1")
    submit(host, submission(folder, 0, 7, 0, 7), run="run2")
    assert host.leaderboard() == [
        LeaderboardRow(1, "exp", {"rmse": 0.0, "mae": 0.0}, None, "run2", 2, "2026-11-22T12:00:00+00:00"),
        LeaderboardRow(2, "ones", {"rmse": 1.0, "mae": 1.0}, None),
        LeaderboardRow(3, "exp", {"rmse": 2.0, "mae": 2.0}, None, "run1", 1, "2026-11-22T12:00:00+00:00"),
        LeaderboardRow(4, "threes", {"rmse": 3.0, "mae": 3.0}, None),
    ]
    assert [row.is_baseline for row in host.leaderboard()] == [False, True, False, True]
    revealed = host.leaderboard(reveal=True)
    assert [(row.name, row.run, row.private["rmse"]) for row in revealed] == [
        ("threes", None, 0.0),
        ("exp", "run1", 0.0),
        ("ones", None, 1.0),
        ("exp", "run2", 7.0),
    ]


def test_higher_is_better_where_the_metric_says_so(folder):
    rules = make_competition(task="multiclass", class_names=("0", "1"), metric="accuracy", extra_metrics=())
    write_csv(folder / "baselines" / "threes.csv", "id,label", "a,0", "b,1", "c,1", "d,1")
    host = LocalHost(folder, rules, clock=Clock())
    submit(host, submission(folder, 0, 1, 0, 1))
    assert [(row.name, row.public) for row in host.leaderboard()] == [
        ("exp", {"accuracy": 1.0}),
        ("threes", {"accuracy": 0.5}),
        ("ones", {"accuracy": 0.0}),
    ]


def test_a_run_stands_once_with_its_best(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    submit(host, submission(folder, 2, 0, 2, 0))
    submit(host, submission(folder, 9, 0, 9, 0))
    rows = [row for row in host.leaderboard() if row.run == "run1"]
    assert [(row.ref, row.place, row.public["rmse"]) for row in rows] == [(1, 2, 2.0)]


def test_the_same_file_counts_again_and_is_told(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    path = submission(folder, 1, 1, 1, 1)
    first, second = submit(host, path), submit(host, path)
    assert (first.same_as, second.same_as) == (None, 1)
    assert (first.remaining_today, second.remaining_today) == (2, 1)


def test_daily_limit_and_the_time_it_opens(folder):
    clock = Clock(datetime(2026, 11, 22, 21, 14, 30, tzinfo=UTC))
    host = LocalHost(folder, RULES, clock=clock)
    path = submission(folder, 1, 1, 1, 1)
    assert [submit(host, path).remaining_today for _ in range(3)] == [2, 1, 0]
    with pytest.raises(PodiumError) as error:
        submit(host, path)
    assert str(error.value) == (
        "tiny_task: all 3 submissions of 2026-11-22 (UTC) are used; "
        "the host opens again at 2026-11-23 00:00 UTC, in 2 h 46 min"
    )
    assert host.remaining_today() == 0
    assert len(list((folder / "submissions").iterdir())) == 3
    clock.now += timedelta(hours=3)
    assert host.remaining_today() == 3
    assert submit(host, path).ref == 4


def test_a_refused_file_costs_nothing(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    path = submission(folder, 1, "x", 1, 1)
    with pytest.raises(PodiumError) as error:
        submit(host, path)
    assert str(error.value) == f"{path}: column label, row 2 (id b): x is not a number: write a number"
    with pytest.raises(PodiumError) as error:
        submit(host, folder / "nothing.csv")
    assert str(error.value) == (
        f"{folder / 'nothing.csv'}: cannot be read (No such file or directory); `make predict` writes it"
    )
    path.write_bytes(b"")
    with pytest.raises(PodiumError, match=r"not a CSV file \(.*\); write it again"):
        submit(host, path)
    assert host.remaining_today() == 3
    assert not (folder / "leaderboard.jsonl").exists()


def test_missing_answers_name_the_command(tmp_path):
    with pytest.raises(PodiumError) as error:
        LocalHost(tmp_path, RULES)
    assert str(error.value) == (
        f"{tmp_path / 'solution.csv'}: no such file: the answers of tiny_task are not here; "
        "make it with: podium data prepare tiny_task"
    )
    write_csv(tmp_path / "solution.csv", "id,label", "a,0")
    with pytest.raises(PodiumError) as error:
        LocalHost(tmp_path, RULES)
    assert str(error.value) == (
        f"{tmp_path / 'solution.csv'}: column usage is missing; make it with: podium data prepare tiny_task"
    )


def test_baselines_are_scored_once_until_something_changes(folder):
    cache = folder / "baselines.json"
    assert [row.name for row in LocalHost(folder, RULES).leaderboard()] == ["ones", "threes"]
    kept = json.loads(cache.read_text())
    assert kept["ones"]["public"] == {"rmse": 1.0, "mae": 1.0}
    kept["ones"]["public"]["rmse"] = 0.5
    cache.write_text(json.dumps(kept))
    assert LocalHost(folder, RULES).leaderboard()[0].public["rmse"] == 0.5, "a kept score is used"
    write_csv(folder / "baselines" / "ones.csv", "id,label", "a,2", "b,1", "c,2", "d,1")
    assert LocalHost(folder, RULES).leaderboard()[0].public["rmse"] == 2.0
    write_csv(folder / "solution.csv", "id,label,usage", "a,2,public", "b,0,private", "c,2,public", "d,0,private")
    assert LocalHost(folder, RULES).leaderboard()[0].public == {"rmse": 0.0, "mae": 0.0}
    (folder / "baselines" / "ones.csv").unlink()
    assert [row.name for row in LocalHost(folder, RULES).leaderboard()] == ["threes"]
    assert list(json.loads(cache.read_text())) == ["threes"]


def test_text_and_groups(tmp_path):
    """Two languages with one and three public rows count alike; "NA" is an answer."""
    rules = make_competition(
        task="text_to_text",
        metric="exact_match",
        extra_metrics=("cer",),
        metric_group="language",
        label_columns=("name",),
    )
    rows = ["a,NA,public,de", "b,x,public,fr", "c,y,public,fr", "d,z,public,fr", "e,x,private,de", "f,x,private,fr"]
    write_csv(tmp_path / "solution.csv", "id,name,usage,language", *rows)
    path = write_csv(tmp_path / "submission.csv", "id,name", "a,NA", "b,x", "c,wrong", "d,z", "e,o", "f,x")
    receipt = LocalHost(tmp_path, rules).submit(path, run="r", experiment="e", description="", reveal=True)
    assert receipt.public["exact_match"] == pytest.approx((1 + 2 / 3) / 2)
    assert receipt.private["exact_match"] == pytest.approx(0.5)
    assert list(receipt.public) == ["exact_match", "cer"]


def test_a_damaged_ledger_line_is_named(folder):
    host = LocalHost(folder, RULES, clock=Clock())
    submit(host, submission(folder, 1, 1, 1, 1))
    with (folder / "leaderboard.jsonl").open("a") as ledger:
        ledger.write('{"ref": 2, "ti\n')
    with pytest.raises(PodiumError) as error:
        host.leaderboard()
    assert str(error.value) == (
        f"{folder / 'leaderboard.jsonl'}: line 2: damaged (no JSON: EOF while parsing a string at line 1 column 14); "
        "delete that line (its file stays under submissions/)"
    )


def slow_clock() -> datetime:
    """Keeps whoever counts today's submissions busy long enough that another would come between."""
    time.sleep(0.02)
    return NOON


def hand_in_twice(folder: Path, run: str, start, results) -> None:
    rules = make_competition(task="regression", metric="rmse", extra_metrics=("mae",), daily_limit=7)
    host = LocalHost(folder, rules, clock=slow_clock)
    start.wait(timeout=30)
    for _ in range(2):
        try:
            results.put(str(submit(host, folder / "submission.csv", run=run).ref))
        except PodiumError as error:
            results.put(str(error)[:35])


def test_processes_at_once_share_the_limit_and_no_ref(folder):
    """Four processes, two submissions each, seven allowed: seven different refs, one refusal."""
    submission(folder, 1, 1, 1, 1)
    LocalHost(folder, RULES).leaderboard()  # scores the baselines before the race
    context = multiprocessing.get_context("fork")  # a fresh interpreter would import for seconds
    start, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=hand_in_twice, args=(folder, f"run{number}", start, results)) for number in range(4)
    ]
    for process in processes:
        process.start()
    said = [results.get(timeout=60) for _ in range(8)]
    for process in processes:
        process.join(timeout=60)
    assert sorted(said) == ["1", "2", "3", "4", "5", "6", "7", "tiny_task: all 7 submissions of 202"]
    refs = [json.loads(line)["ref"] for line in (folder / "leaderboard.jsonl").read_text().splitlines()]
    assert refs == [1, 2, 3, 4, 5, 6, 7]
