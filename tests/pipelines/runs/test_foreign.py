"""`runs import` of folders that others wrote: what leads out of them is refused, and nothing here changes."""

import json
import os
import shutil
import socket

import pytest
from canary import PRIVATE, make_canary, untouched
from tiny_competition import make_run, write_lines

from pipelines.errors import PodiumError
from pipelines.runs.importing import NEW
from pipelines.runs.keeping import take_in
from pipelines.tracking.jsonl import import_jsonl_run, open_jsonl_tracker
from pipelines.tracking.tracker import tracking_record
from pipelines.workspace import Workspace

RUN = "20261121-100000-bbbb"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The pulled output of a kernel, as podium leaves it."""
    folder = tmp_path_factory.mktemp("good") / "v3"
    run_dir = make_run(Workspace(folder), RUN, commit=None, dirty=False, source_sha256="5" * 64)
    write_lines(run_dir / "fold0" / "result.json", '{"checkpoint": "checkpoints/step-00000002", "num_steps": 2}')
    write_lines(run_dir / "fold0" / "checkpoints" / "step-00000002" / "model.safetensors", "weights")
    submission = {"host": "kaggle", "competition": "tiny_task", "ref": 1, "sha256": "", "status": "PENDING"}
    submission |= {"time": "2026-11-21T12:00:00+00:00"}
    write_lines(run_dir / "submissions.jsonl", json.dumps(submission))
    tracker = open_jsonl_tracker(run_dir, competition="tiny-task", run_name=f"first_try {RUN}")
    tracker.log_text("a: 1\n", "config.yaml")
    tracker.log_artifact(run_dir / "config.yaml")
    tracker.log_data("train.csv", "d" * 64, folder / "train.csv")
    tracker.child("fold0").log_metrics({"train/loss": 1.0}, step=1)
    record = json.loads((run_dir / "run.json").read_text()) | {"tracking": tracking_record(tracker).entries()}
    write_lines(run_dir / "run.json", json.dumps(record))
    tracker.finish("FINISHED")
    write_lines(folder.with_suffix(".json"), json.dumps({"kernel": "alice/tiny", "version": 3, "files": {}}))
    return folder


class Attack:
    """A copy of the output to spoil, the folder outside that it aims at, and the checkout that takes it in."""

    def __init__(self, good, root):
        self.output = shutil.copytree(good, root / "outputs" / "v3")
        shutil.copy(good.with_suffix(".json"), self.output.with_suffix(".json"))
        self.run = self.output / "runs" / "first_try" / RUN
        self.outside = make_canary(root / "outside")
        self.workspace = Workspace(root / "checkout")
        write_lines(self.workspace.runs / "other" / "20261120-100000-aaaa" / "run.json", "{}")

    def refused(self, match, folder=None):
        with untouched(self.outside, self.workspace.root), pytest.raises(PodiumError, match=match) as error:
            take_in(self.workspace, folder or self.output)
        assert len(str(error.value).splitlines()) == 1

    def record(self, **changes):
        content = json.loads((self.run / "run.json").read_text()) | changes
        kept = {key: value for key, value in content.items() if value is not ...}
        (self.run / "run.json").write_text(json.dumps(kept))

    def event(self, place="tracking", **row):
        with (self.run / place / "events.jsonl").open("a") as file:
            file.write(json.dumps({"time": 1_700_000_000_000, "event": "artifact", "folder": ""} | row) + "\n")


@pytest.fixture
def attack(good, tmp_path):
    return Attack(good, tmp_path)


BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "/OUT",
    "a\\b",
    "a\0b",
    "a\nb",
    "-x",
    ".git",
    "x" * 300,
    7,
    None,
    ["a"],
]


@pytest.mark.parametrize("value", [*BAD_NAMES, "../../../outside", "a/b", f"{RUN}.partial", "\ud800", ...])
def test_a_run_that_is_named_to_lie_elsewhere(attack, value):
    value = str(attack.outside) if value == "/OUT" else value
    attack.record(run=value)
    attack.refused(r"run.json: run: ")


@pytest.mark.parametrize("value", [*BAD_NAMES, "../../outside", "a//b", "a/", ...])
def test_an_experiment_that_is_named_to_lie_elsewhere(attack, value):
    value = str(attack.outside) if value == "/OUT" else value
    attack.record(experiment=value)
    attack.refused(r"run.json: experiment: ")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tracking": ...}, "run.json: tracking: None is no object"),
        ({"tracking": "mlflow"}, "run.json: tracking: 'mlflow' is no object"),
        ({"commit": "--upload-pack=x"}, "run.json: commit: '--upload-pack=x' is no commit"),
        ({"commit": "HEAD"}, "run.json: commit: 'HEAD' is no commit"),
    ],
)
def test_entries_that_cannot_be(attack, changes, match):
    attack.record(**changes)
    attack.refused(match)


@pytest.mark.parametrize(
    "name",
    [
        "link.txt",
        "run.json",
        "submissions.jsonl",
        "config.yaml",
        "uncommitted.diff",
        "tracking/events.jsonl",
        "tracking/tags.json",
        "tracking/fold0/metrics.jsonl",
        "fold0/result.json",
        "fold0/checkpoints/step-00000002/model.safetensors",
    ],
)
@pytest.mark.parametrize("target", ["secret.txt", "../../../../../../../outside/secret.txt", "/dev/zero", "nowhere"])
def test_a_link_to_a_file(attack, name, target):
    (attack.run / name).unlink(missing_ok=True)
    (attack.run / name).symlink_to(attack.outside / target if target == "secret.txt" else target)
    attack.refused(r"(is a symbolic link|holds no run)")


@pytest.mark.parametrize("name", ["tracking", "fold0", "tracking/fold0", "tracking/artifacts", "new"])
def test_a_link_to_a_folder(attack, name):
    if (attack.run / name).exists():
        shutil.move(attack.run / name, attack.outside / "moved")
        (attack.run / name).symlink_to(attack.outside / "moved")
    else:
        (attack.run / name).symlink_to(attack.outside)
    attack.refused(r"is a symbolic link")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", os.fsdecode(b"a\xffb"), "x" * 255])
def test_the_line_about_a_strange_name_is_one(attack, name):
    (attack.run / name).symlink_to(attack.outside)
    attack.refused(r"is a symbolic link; needs files and folders only")


@pytest.mark.parametrize("place", ["run.json", "tracking/params.json"])
@pytest.mark.parametrize("depth", [400, 990, 100_000])
def test_an_entry_without_bottom(attack, place, depth):
    content = json.loads((attack.run / place).read_text()) if (attack.run / place).exists() else {}
    text = json.dumps(content | {"deep": 0}).replace('"deep": 0', f'"deep": {"[" * depth}{"]" * depth}')
    (attack.run / place).write_text(text)
    attack.refused(r"(nested too deep|recursion)")


def test_a_name_of_a_million_letters(attack):
    attack.record(run="../" * 1_000_000)
    attack.refused(r"run.json: run: '\.\./")
    with pytest.raises(PodiumError) as error:
        take_in(attack.workspace, attack.output)
    assert len(str(error.value)) < 600


def test_a_loop_of_links(attack):
    (attack.run / "loop").symlink_to(attack.run)
    attack.refused(r"loop: is a symbolic link")


def test_a_run_folder_that_is_a_link(attack):
    shutil.move(attack.run, attack.outside / RUN)
    attack.run.symlink_to(attack.outside / RUN)
    attack.refused(r"holds no run directory")
    attack.refused(r"is a symbolic link", attack.run)


def test_a_link_to_a_whole_output_is_the_users_own(attack, database_template, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(database_template, attack.workspace.mlflow_db)
    link = attack.output.with_name("latest")
    link.symlink_to(attack.output)
    (imported,) = take_in(attack.workspace, link)
    assert imported.state == NEW


@pytest.mark.parametrize("name", ["pipe", "run.json", "submissions.jsonl", "tracking/metrics.jsonl"])
def test_a_pipe_is_not_opened(attack, name):
    (attack.run / name).unlink(missing_ok=True)
    os.mkfifo(attack.run / name)
    attack.refused(r"is a pipe")


def test_a_socket_is_not_copied(attack, monkeypatch):
    monkeypatch.chdir(attack.run)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        attack.refused(r"socket: is a socket")


def test_a_folder_without_end(attack):
    (attack.run / "/".join("d" * 1 for _ in range(60))).mkdir(parents=True)
    attack.refused(r"more than 32 folders deep")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"path": "OUT/secret.txt"}, "path: '.*outside/secret.txt' leads out of"),
        ({"path": "../../../../../../outside/secret.txt"}, "path: .*leads out of"),
        ({"path": "OUT"}, "path: .*leads out of"),
        ({"path": "artifacts/../../../../other"}, "path: .*leads out of"),
        ({"path": "a\0b"}, "path: 'a.x00b' is no text"),
        ({"path": 5}, "path: 5 is no text"),
        ({}, "path: missing"),
        ({"path": "../config.yaml", "folder": "../up"}, "folder: '../up' does not stay"),
        ({"path": "../config.yaml", "folder": "/tmp"}, "folder: '/tmp' does not stay"),
        ({"event": "data", "name": "x", "digest": 5, "path": "x"}, "digest: 5 is no text"),
        ({"event": "finished", "status": "BOGUS"}, "status: 'BOGUS' is not known"),
        ({"path": "../config.yaml", "time": "now"}, "time: 'now' is no whole number"),
    ],
)
@pytest.mark.parametrize("place", ["tracking", "tracking/fold0"])
def test_an_event_that_leads_elsewhere(attack, place, row, match):
    attack.event(
        place, **{key: v.replace("OUT", str(attack.outside)) if isinstance(v, str) else v for key, v in row.items()}
    )
    attack.refused(rf"{place}/events.jsonl, line \d: {match}")


def test_an_artifact_outside_is_not_sent_by_the_import_of_a_tracker_alone(attack, tmp_path):
    attack.event(path=str(attack.outside / "secret.txt"))
    target = open_jsonl_tracker(tmp_path / "other")
    with untouched(attack.outside), pytest.raises(PodiumError, match=r"line 6: path: .* leads out of"):
        import_jsonl_run(attack.run / "tracking", target)
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file() and path.read_bytes() == PRIVATE]


@pytest.mark.parametrize("name", ["-x", ".x", "a\\b", "a\nb"])
def test_a_nested_run_with_a_name_that_is_none(attack, name):
    shutil.copytree(attack.run / "tracking" / "fold0", attack.run / "tracking" / name)
    attack.refused(r"a nested run's folder: ")


@pytest.mark.parametrize("checkpoint", ["../../../../outside", "OUT", "", ".", "checkpoints/../../..", 5, None])
def test_a_checkpoint_elsewhere(attack, checkpoint):
    checkpoint = str(attack.outside) if checkpoint == "OUT" else checkpoint
    write_lines(attack.run / "fold0" / "result.json", json.dumps({"checkpoint": checkpoint}))
    attack.refused(r"fold0/result.json: checkpoint: ")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ref": "../../x"}, "ref: '../../x' is not a whole number"),
        ({"host": "../x"}, "host: '../x' is not 'local' or 'kaggle'"),
        ({"competition": "/etc"}, "competition: '/etc' is no name"),
    ],
)
def test_a_submission_that_came_along_with_words_that_lead_elsewhere(attack, changes, match):
    entry = {"host": "local", "competition": "tiny_task", "ref": 7, "sha256": "a" * 64, "status": "COMPLETE"}
    entry |= {"time": "2026-11-21T12:00:00+00:00"}
    write_lines(attack.run / "submissions.jsonl", json.dumps(entry), json.dumps(entry | changes))
    attack.refused(rf"submissions.jsonl: line 2: {match}")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"kernel": "../x", "version": 1}', "'../x' is no address on Kaggle; needs owner/slug"),
        ('{"kernel": "a/b/c", "version": 1}', "'a/b/c' is no address"),
        ('{"kernel": 5, "version": 1}', "5 is no address"),
        ('{"kernel": "a/b", "version": "1"}', "version: '1' is not a whole number"),
        ('{"kernel": "a/b", "version": -1}', "version: -1 is not greater than 0"),
        ("{", "unreadable"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_version_beside_it_that_is_none(attack, content, match):
    attack.output.with_suffix(".json").write_text(content)
    attack.refused(rf"v3.json: .*{match}")


def test_a_version_beside_it_that_is_a_link(attack):
    attack.output.with_suffix(".json").unlink()
    write_lines(attack.outside / "v.json", '{"kernel": "alice/tiny", "version": 3}')
    attack.output.with_suffix(".json").symlink_to(attack.outside / "v.json")
    attack.refused(r"v3.json: is a symbolic link")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "\0", "5"])
def test_a_record_that_is_none(attack, content):
    (attack.run / "run.json").write_text(content)
    attack.refused(r"run.json: ")


def test_a_folder_in_the_way_is_left_alone(attack):
    place = attack.workspace.runs / "first_try" / RUN
    write_lines(place / "my_notes.txt", "mine")
    attack.refused(r"is there already and is no run \(no run.json\); move it away first")
    assert (place / "my_notes.txt").is_file()


def test_the_good_one_of_two_waits_for_the_bad_one(attack):
    shutil.copytree(attack.run, attack.run.with_name("20261129-100000-cccc"))
    write_lines(attack.run.with_name("20261129-100000-cccc") / "run.json", '{"run": "../x"}')
    attack.refused(r"20261129-100000-cccc/run.json: run: '../x' is no name")


def test_a_run_that_says_it_is_one_of_this_database_gets_its_own(attack, database_template, monkeypatch):
    """Whatever tracker a run had elsewhere, here it has none yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(database_template, attack.workspace.mlflow_db)
    (first,) = take_in(attack.workspace, attack.output)
    taken = first.run.read_record().tracking
    attack.record(run="20261121-100000-eeee", tracking=taken.entries(), imported={"kernel": "x/y", "version": 1})
    attack.output.with_suffix(".json").unlink()
    (second,) = take_in(attack.workspace, attack.output)
    record = second.run.read_record()
    assert record.tracking.run_id not in (None, taken.run_id)
    assert record.imported.entries() == {}
